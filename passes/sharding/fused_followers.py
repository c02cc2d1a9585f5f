"""What follows an operator element by element moves into its shards, so that onnxruntime fuses there what it fuses whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import onnx_graphsurgeon as gs

from hyps.passes.cost.fusion import FUSES_ADD
from hyps.passes.onnx_ops import ACTIVATIONS
from hyps.passes.sharding.graph_editor import GraphEditor, Part


def fused_followers(cutting: GraphEditor, node: gs.Node) -> Iterator[gs.Node]:
    """The operators behind ``node`` that its shards compute: an Add, activations, a QuantizeLinear at the end."""
    result, adds = node.outputs[0], node.op in FUSES_ADD
    while (after := cutting.follower(result)) is not None:
        others = [operand for operand in after.inputs if operand is not result]
        constant = all(isinstance(other, gs.Constant) for other in others)
        quantised = after.op == "QuantizeLinear" and constant and not after.attrs.get("block_size")
        added = after.op == "Add" and adds and all(_joins(cutting, other, result, node.op) for other in others)
        if not (quantised or added or (after.op in ACTIVATIONS and constant)):
            return
        yield after
        if quantised:
            return
        adds, result = False, after.outputs[0]


def shard_fused_followers(
    cutting: GraphEditor, chain: Sequence[gs.Node], value: gs.Tensor, axis: int, part: Part, nodes: list[gs.Node]
) -> gs.Tensor:
    """The shard of all but the first of ``chain``, from ``value``, that one's; returns what the last writes."""
    for before, member in itertools.pairwise(chain):
        source = before.outputs[0]
        operands = [
            value if operand is source else _cut(cutting, member, operand, source, axis, part, nodes)
            for operand in member.inputs
        ]
        value = gs.Variable(part.name(member.outputs[0].name), dtype=member.outputs[0].dtype)
        nodes.append(gs.Node(member.op, part.name(member.name), dict(member.attrs), operands, [value]))
    return value


def _joins(cutting: GraphEditor, other: gs.Tensor, result: gs.Tensor, kind: str) -> bool:
    """Whether an operand can be added to ``result`` in parts: a constant that does not widen it, or a tensor of its shape.

    Not what another ``kind`` makes for this alone: onnxruntime adds the one to the other, and which is not known here.
    """
    shape, whole = tuple(other.shape), tuple(result.shape)
    if isinstance(other, gs.Constant):
        return len(shape) <= len(whole) and all(
            size in (1, all_) for size, all_ in zip(shape[::-1], whole[::-1], strict=False)
        )
    return shape == whole and cutting.writer.get(other.name) != kind


def _cut(
    cutting: GraphEditor, member: gs.Node, operand: gs.Tensor, source: gs.Tensor, axis: int, part: Part, nodes: list[gs.Node]
) -> gs.Tensor:
    """The shard's part of another operand of a ``member`` of the tail that reads ``source``."""
    rank = len(source.shape)
    if member.op == "Add":
        along = axis - rank + len(operand.shape)
        return cutting.cut(operand, part, along, nodes) if along >= 0 else operand
    per_axis = member.op == "QuantizeLinear" and operand.shape and member.attrs.get("axis", 1) % rank == axis
    return cutting.cut(operand, part, 0, nodes) if per_axis else operand
