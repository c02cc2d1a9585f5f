"""Which operators of attention can be computed some heads at a time, bit for bit, and which axis the heads are.

The heads are the last axis but two of a product of two activations, [..., heads, tokens, channels] or
[..., heads, tokens, tokens]. From there they are followed through what keeps every head to itself (element by element,
a Softmax along the last axis, transpositions), up to what joins them::

    query [1, n, h, d] ─ Transpose [1, h, n, d] ─┐
    key   [1, n, h, d] ─ Transpose [1, h, d, n] ─┴─ MatMul [1, h, n, n] ─ Mul ─ Softmax ─┐
    value [1, n, h, d] ─ Transpose [1, h, n, d] ─────────────────────────────────────────┴─ MatMul ─ Transpose [1, n, h, d]

Measured on onnxruntime 1.31, x86-64, with 1, 2 and 4 threads (tests/passes/tiling/test_heads.py): MLAS computes the products one
by one, and lets threads share each when there are fewer of them than threads. They share its rows, or its columns where
those are more; then, if a thread has 64 of them or fewer, sums longer than 128 are added up in another order. One column
alone goes to another kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from onnx import NodeProto

from hyps.passes.graph import STANDARD_DOMAINS, Graph, Operator
from hyps.passes.sharding.layouts import attributes_of
from hyps.passes.tiling.sweep import ELEMENTWISE, Sweep, elementwise
from hyps.passes.weights import Model

_BLOCK_DEPTH, _THREAD_COLUMNS = 128, 80
#: From this opset on, Softmax goes along the last axis where it does not say another.
_SOFTMAX_LAST = 13


def head_sweeps(model: Model, graph: Graph, nodes: Mapping[str, NodeProto], threads: int) -> Mapping[str, Sweep]:
    """Those of the operators ``nodes`` that can be tiled along the heads when a session has up to so many threads."""
    opset = max(entry.version for entry in model.proto.opset_import if entry.domain in STANDARD_DOMAINS)
    heads = _Heads(graph, nodes, opset, threads)
    operators = [operator for operator in graph.operators if operator.name in nodes]
    while heads.follow(operators) | heads.follow(reversed(operators)):
        pass
    found = {operator.name: heads.sweep(operator) for operator in operators}
    return {name: replace(sweep, along="heads") for name, sweep in found.items() if sweep is not None}


class _Heads:
    """The axis of the heads of every tensor that has them, as far as they were followed."""

    def __init__(self, graph: Graph, nodes: Mapping[str, NodeProto], opset: int, threads: int) -> None:
        self._graph, self._nodes, self._opset, self._threads = graph, nodes, opset, threads
        self._axes: dict[str, int] = {}

    def follow(self, operators: Iterable[Operator]) -> bool:
        """Follow the heads through each of ``operators``; whether any were found that were not known."""
        known = len(self._axes)
        for operator in operators:
            sweep = self._candidate(operator)
            if sweep is not None:
                self._axes.setdefault(operator.outputs[0], sweep.axis)
                for name in operator.inputs:
                    if name not in sweep.whole:
                        self._axes.setdefault(name, sweep.source_axis)
        return len(self._axes) > known

    def sweep(self, operator: Operator) -> Sweep | None:
        """How an operator is tiled, where the heads are the same axis for all who read and make a tensor."""
        sweep = self._candidate(operator)
        if sweep is None or self._axes.get(operator.outputs[0]) != sweep.axis:
            return None
        agree = all(name in sweep.whole or self._axes.get(name) == sweep.source_axis for name in operator.inputs)
        return sweep if agree else None

    def _candidate(self, operator: Operator) -> Sweep | None:
        """How it would be tiled by the axes that are known so far."""
        node, axis = self._nodes[operator.name], self._axis(operator)
        if operator.op_type == "MatMul":
            return self._product(node)
        if axis is None:
            return None
        rank = len(self._graph.tensors[operator.outputs[0]].shape)
        if operator.op_type == "Transpose":
            return Sweep(axis=axis, source_axis=_order(node, rank)[axis])
        if operator.op_type == "Softmax":
            along = attributes_of(node).get("axis", -1 if self._opset >= _SOFTMAX_LAST else 1) % rank
            return Sweep(axis=axis, source_axis=axis) if axis < along == rank - 1 else None
        return elementwise(self._graph, operator, axis) if operator.op_type in ELEMENTWISE else None

    def _axis(self, operator: Operator) -> int | None:
        """Where the heads of an operator's result are, as it is known of that or of what it reads."""
        result = operator.outputs[0]
        if result in self._axes:
            return self._axes[result]
        rank = len(self._graph.tensors[result].shape)
        known = (self._axes[name] for name in operator.inputs if name in self._axes and self._rank(name) == rank)
        axis = next(known, None)
        if axis is None or operator.op_type != "Transpose":
            return axis
        return _order(self._nodes[operator.name], rank).index(axis)

    def _product(self, node: NodeProto) -> Sweep | None:
        """A product of two activations, the heads being the last axis but two, if its bits do not depend on how many."""
        if any(name not in self._graph.tensors for name in node.input):
            return None
        left, right = (self._graph.tensors[name].shape for name in node.input)
        if len(left) < 3 or left[:-2] != right[:-2]:
            return None
        rows, depth, columns = left[-2], left[-1], right[-1]
        same = depth <= _BLOCK_DEPTH or columns <= rows or columns >= _THREAD_COLUMNS * self._threads
        return Sweep(axis=len(left) - 3, source_axis=len(left) - 3) if same and columns > 1 else None

    def _rank(self, name: str) -> int:
        return len(self._graph.tensors[name].shape)


def _order(node: NodeProto, rank: int) -> list[int]:
    """The axes of its input that those of a transposition's result are."""
    return list(attributes_of(node).get("perm", range(rank)[::-1]))
