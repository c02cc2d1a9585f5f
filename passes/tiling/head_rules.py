"""Rules for computing attention some heads at a time, bit for bit.

The heads are the last axis but two of a product of two activations, [..., heads, tokens, channels] or
[..., heads, tokens, tokens]. From there they are followed through every operator that keeps the heads apart (element by
element, a Softmax along the last axis, a Transpose), up to the operator that joins them::

    query [1, n, h, d] ─ Transpose [1, h, n, d] ─┐
    key   [1, n, h, d] ─ Transpose [1, h, d, n] ─┴─ MatMul [1, h, n, n] ─ Mul ─ Softmax ─┐
    value [1, n, h, d] ─ Transpose [1, h, n, d] ─────────────────────────────────────────┴─ MatMul ─ Transpose [1, n, h, d]

Measured on onnxruntime 1.31, x86-64, with 1, 2 and 4 threads (tests/passes/tiling/test_heads.py): MLAS computes the products
one by one. Where there are fewer products than threads, several threads share each product: its rows, or its columns where
those are more. A tile has fewer products than the whole, so more threads may share each. A thread that then has few columns
adds up long sums in another order (`hyps.passes.mlas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from onnx import NodeProto

from hyps.passes.graph import Graph, Operator
from hyps.passes.mlas import BLOCK_DEPTH, POSITION_INDEPENDENT, WIDE_COLUMNS
from hyps.passes.onnx_ops import attributes_of, softmax_axis, standard_opset, transpose_order
from hyps.passes.tiling.rules import TilingRule, elementwise_rule
from hyps.passes.weights import Model


def head_rules(model: Model, graph: Graph, nodes: Mapping[str, NodeProto], threads: int) -> Mapping[str, TilingRule]:
    """Return the rules of those operators among ``nodes`` that can be tiled along the heads, by operator name.

    A session has up to ``threads`` threads.
    """
    heads = _HeadAxes(graph, nodes, standard_opset(model.proto), threads)
    operators = [operator for operator in graph.operators if operator.name in nodes]
    while heads.propagate(operators) | heads.propagate(reversed(operators)):
        pass
    rules = {operator.name: heads.rule(operator) for operator in operators}
    return {name: replace(rule, tile_axis="heads") for name, rule in rules.items() if rule is not None}


class _HeadAxes:
    """The axis of the heads of every tensor that has heads, as far as it is known."""

    def __init__(self, graph: Graph, nodes: Mapping[str, NodeProto], opset: int, threads: int) -> None:
        self._graph, self._nodes, self._opset, self._threads = graph, nodes, opset, threads
        self._axes: dict[str, int] = {}

    def propagate(self, operators: Iterable[Operator]) -> bool:
        """Follow the heads through each of ``operators``; return whether an axis was found that was not known."""
        known = len(self._axes)
        for operator in operators:
            rule = self._candidate(operator)
            if rule is not None:
                self._axes.setdefault(operator.outputs[0], rule.axis)
                for name in operator.inputs:
                    if name not in rule.broadcast_inputs:
                        self._axes.setdefault(name, rule.source_axis)
        return len(self._axes) > known

    def rule(self, operator: Operator) -> TilingRule | None:
        """Return an operator's rule; None where the operators around its tensors disagree about the axis of the heads."""
        rule = self._candidate(operator)
        if rule is None or self._axes.get(operator.outputs[0]) != rule.axis:
            return None
        agree = all(name in rule.broadcast_inputs or self._axes.get(name) == rule.source_axis for name in operator.inputs)
        return rule if agree else None

    def _candidate(self, operator: Operator) -> TilingRule | None:
        """Return the rule that an operator would have by the axes that are known so far."""
        node, axis = self._nodes[operator.name], self._axis(operator)
        if operator.op_type == "MatMul":
            return self._product_rule(node)
        if axis is None:
            return None
        rank = len(self._graph.tensors[operator.outputs[0]].shape)
        if operator.op_type == "Transpose":
            return TilingRule(axis=axis, source_axis=transpose_order(attributes_of(node), rank)[axis])
        if operator.op_type == "Softmax":
            reduced = softmax_axis(attributes_of(node), self._opset, rank)
            return TilingRule(axis=axis, source_axis=axis) if axis < reduced == rank - 1 else None
        return elementwise_rule(self._graph, operator, axis) if operator.op_type in POSITION_INDEPENDENT else None

    def _axis(self, operator: Operator) -> int | None:
        """Return the axis of the heads in an operator's result, as known from the result or from an input of its rank."""
        result = operator.outputs[0]
        if result in self._axes:
            return self._axes[result]
        rank = len(self._graph.tensors[result].shape)
        known = (self._axes[name] for name in operator.inputs if name in self._axes and self._rank(name) == rank)
        axis = next(known, None)
        if axis is None or operator.op_type != "Transpose":
            return axis
        return transpose_order(attributes_of(self._nodes[operator.name]), rank).index(axis)

    def _product_rule(self, node: NodeProto) -> TilingRule | None:
        """Return the rule of a product of two activations, if its bits do not depend on the number of heads.

        The heads are the last axis but two of both factors.
        """
        if any(name not in self._graph.tensors for name in node.input):
            return None
        left, right = (self._graph.tensors[name].shape for name in node.input)
        if len(left) < 3 or left[:-2] != right[:-2]:
            return None
        rows, depth, columns = left[-2], left[-1], right[-1]
        same_order = depth <= BLOCK_DEPTH or columns <= rows or columns >= WIDE_COLUMNS * self._threads
        return TilingRule(axis=len(left) - 3, source_axis=len(left) - 3) if same_order and columns > 1 else None

    def _rank(self, name: str) -> int:
        return len(self._graph.tensors[name].shape)
