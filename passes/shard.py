"""Horizontal split of a Gemm or MatMul by output: each shard holds some columns of the result and the weights for them.

Hadidi, section 4.2 (output split); Kaboubi, section 3.2.4 (H-partitions of neurons). One operator becomes N of the same
kind and a Concat; the input goes to all; a bias is cut along; activations behind it move into the shards. Every output
element is computed from the same numbers in the same order, so with shard widths that are multiples of eight the result
is bit for bit the whole operator's (DESIGN.md section 5).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from hyps.passes.errors import UnsupportedModel
from hyps.passes.fusion import ACTIVATIONS
from hyps.passes.graph import STANDARD_DOMAINS
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.weights import Model, Weight, placeholder

#: Shard widths are multiples of this, which keeps onnxruntime's result bit-exact.
WIDTH_STEP = 8


def shard_name(name: str, index: int, count: int) -> str:
    """The name of one shard of an operator, a weight or a tensor, counted from one."""
    return f"{name}/shard{index + 1}of{count}"


def shard_widths(width: int, count: int) -> tuple[int, ...]:
    """``width`` output columns in ``count`` shards, as equal as multiples of `WIDTH_STEP` allow; the last takes the rest."""
    blocks, rest = divmod(width, WIDTH_STEP)
    share, extra = divmod(blocks, count)
    widths = [(share + (index < extra)) * WIDTH_STEP for index in range(count)]
    widths[-1] += rest
    return tuple(widths)


def most_shards(width: int) -> int:
    """The most shards that an operator with ``width`` output columns can be split into."""
    return max(1, width // WIDTH_STEP)


def shardable_width(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The output columns of a Gemm or MatMul whose weight (in ``shapes``: weights only) can be split by output.

    Raises `UnsupportedModel` with the reason when it cannot.
    """
    if node.domain not in STANDARD_DOMAINS or node.op_type not in {"Gemm", "MatMul"}:
        raise UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split; only Gemm and MatMul can be so far")
    if node.input[1] not in shapes:
        raise UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split: its second input is no constant weight")
    shape = shapes[node.input[1]]
    if len(shape) < 2:
        raise UnsupportedModel(f"MatMul {node.name!r} cannot be split: its weight is a vector")
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] and node.input[2] not in shapes:
        raise UnsupportedModel(f"Gemm {node.name!r} cannot be split: its bias is computed, not constant")
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return shape[0] if transposed else shape[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardByOutput:
    """Split each named operator into its number of shards (``counts``), with the ``reasons`` to tell of."""

    counts: Mapping[str, int]
    reasons: Mapping[str, str]

    def __call__(self, model: Model) -> Rewritten:
        """Split; see the module."""
        if not self.counts:
            return Rewritten(model=model)
        graph = _translated(gs.import_onnx, model.proto)
        split = _Split(graph, dict(model.weights))
        changes = []
        for node in [node for node in graph.nodes if node.name in self.counts]:
            count = self.counts[node.name]
            split.split(node, count)
            what = f"split by output into {count} shards"
            changes.append(Change(operator=node.name, what=what, why=self.reasons[node.name]))
        split.finish()
        proto = _translated(gs.export_onnx, graph, do_type_check=False)
        proto.ir_version = model.proto.ir_version
        kept = {tensor.name for tensor in proto.graph.initializer}
        weights = {name: weight for name, weight in split.weights.items() if name in kept}
        return Rewritten(model=Model(proto=proto, weights=weights), changes=tuple(changes))


def _translated(translate: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What graphsurgeon makes of a model. It raises anything on types and names that the checker lets pass."""
    try:
        return translate(*arguments, **options)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedModel(f"onnx-graphsurgeon cannot read the model ({reason}); export it again") from None


class _Split:
    """Splits nodes of one graphsurgeon graph in place, adding the shards' weights to ``weights``."""

    def __init__(self, graph: gs.Graph, weights: dict[str, Weight]) -> None:
        self.weights = weights
        self._graph = graph
        self._own = {id(node) for node in graph.nodes}
        self._cuts: dict[tuple[str, int, int, int], gs.Constant] = {}
        self._replacements: dict[int, list[gs.Node]] = {}

    def split(self, node: gs.Node, count: int) -> None:
        """Make the shards of ``node`` and what goes with it."""
        transposed = node.op == "Gemm" and bool(node.attrs.get("transB", 0))
        width = node.inputs[1].shape[0 if transposed else -1]
        chain = [node, *self._tail(node, width)]
        incoming = [node.inputs[0], *(member.outputs[0] for member in chain[:-1])]
        result = chain[-1].outputs[0]
        nodes, parts, start = [], [], 0
        for index, columns in enumerate(shard_widths(width, count)):
            cut = _Cut(start=start, columns=columns, width=width, index=index, count=count)
            value = node.inputs[0]
            for member, source in zip(chain, incoming, strict=True):
                rows = 1 if transposed and member is node else None  # the operand whose rows are the columns of the result
                operands = [
                    value if operand is source else self._cut(operand, cut, 0 if position == rows else -1)
                    for position, operand in enumerate(member.inputs)
                ]
                value = gs.Variable(shard_name(member.outputs[0].name, index, count), dtype=result.dtype)
                nodes.append(
                    gs.Node(member.op, shard_name(member.name, index, count), dict(member.attrs), operands, [value])
                )
            parts.append(value)
            start += columns
        for member in chain:
            member.outputs.clear()
            self._replacements[id(member)] = []
        nodes.append(gs.Node("Concat", f"{node.name}/concat", {"axis": len(result.shape) - 1}, parts, [result]))
        self._replacements[id(chain[-1])] = nodes

    def finish(self) -> None:
        """Put the shards where the nodes that were split stood."""
        nodes = [self._replacements.get(id(node), [node]) for node in self._graph.nodes]
        self._graph.nodes[:] = list(itertools.chain.from_iterable(nodes))

    def _tail(self, node: gs.Node, width: int) -> list[gs.Node]:
        """What follows ``node`` alone and works column by column: a constant Add behind a MatMul, activations."""
        tail: list[gs.Node] = []
        result = node.outputs[0]
        while len(result.outputs) == 1 and result not in self._graph.outputs:
            after = result.outputs[0]
            if id(after) not in self._own:  # it stands in a branch or a loop
                break
            others = [operand for operand in after.inputs if operand is not result]
            biased = after.op == "Add" and node.op == "MatMul" and all(_is_column_bias(other, width) for other in others)
            activated = after.op in ACTIVATIONS and all(isinstance(other, gs.Constant) for other in others)
            if not (biased or activated):
                break
            tail.append(after)
            result = after.outputs[0]
        return tail

    def _cut(self, tensor: gs.Tensor, cut: _Cut, axis: int) -> gs.Tensor:
        """The columns of a constant along ``axis``; one that is broadcast there is shared."""
        if not isinstance(tensor, gs.Constant) or not tensor.shape or tensor.shape[axis] != cut.width:
            return tensor
        axis %= len(tensor.shape)
        key = (tensor.name, axis, cut.index, cut.count)
        if key not in self._cuts:
            name = shard_name(tensor.name, cut.index, cut.count)
            if (tensor.name, 1 - axis, cut.index, cut.count) in self._cuts:  # a square matrix, read transposed as well
                name += "/transposed"
            self._cuts[key] = self._cut_constant(tensor, cut, axis, name)
        return self._cuts[key]

    def _cut_constant(self, tensor: gs.Constant, cut: _Cut, axis: int, name: str) -> gs.Constant:
        stop = cut.start + cut.columns
        if tensor.name not in self.weights:
            values = np.take(tensor.values, range(cut.start, stop), axis=axis)
            return gs.Constant(name, LazyValues(numpy_helper.from_array(values, name)))
        shape = list(tensor.shape)
        weight = self.weights[tensor.name]
        sliced = weight.slice_rows if axis == 0 else weight.slice_columns
        self.weights[name] = sliced(cut.start, stop, tuple(shape))
        shape[axis] = cut.columns
        data_type = dtype_to_onnx(tensor.dtype)
        return gs.Constant(name, LazyValues(placeholder(name, data_type, tuple(shape))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """Columns ``start .. start+columns`` of ``width``: shard ``index`` of ``count``."""

    start: int
    columns: int
    width: int
    index: int
    count: int


def _is_column_bias(operand: gs.Tensor, width: int) -> bool:
    """Whether a constant is added column by column without widening the result: one row, or one number."""
    if not isinstance(operand, gs.Constant):
        return False
    shape = tuple(operand.shape)
    return shape in {(), (1,), (width,), (1, width)}
