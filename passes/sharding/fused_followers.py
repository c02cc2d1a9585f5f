"""Move the elementwise operators after an operator into its shards, so that onnxruntime fuses them there as in the whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import onnx_graphsurgeon as gs

from hyps.passes.cost.fusion import FUSES_ADD
from hyps.passes.edit import GraphEditor
from hyps.passes.onnx_ops import ACTIVATIONS
from hyps.passes.sharding.shard_builder import ShardBuilder


def fused_followers(editor: GraphEditor, node: gs.Node) -> Iterator[gs.Node]:
    """Yield the operators after ``node`` that its shards compute: an Add, activations, a QuantizeLinear at the end."""
    result, may_add = node.outputs[0], node.op in FUSES_ADD
    while (after := editor.follower(result)) is not None:
        others = [operand for operand in after.inputs if operand is not result]
        are_constant = all(isinstance(other, gs.Constant) for other in others)
        quantizes = after.op == "QuantizeLinear" and are_constant and not after.attrs.get("block_size")
        adds = after.op == "Add" and may_add and all(_can_be_added(editor, other, result, node.op) for other in others)
        if not (quantizes or adds or (after.op in ACTIVATIONS and are_constant)):
            return
        yield after
        if quantizes:
            return
        may_add, result = False, after.outputs[0]


def shard_fused_followers(shard: ShardBuilder, chain: Sequence[gs.Node], value: gs.Tensor, axis: int) -> gs.Tensor:
    """Add the shard's part of all but the first of ``chain`` and return its result.

    ``value`` is the shard's result of the first; ``axis`` is the axis along which the result is cut.
    """
    for before, member in itertools.pairwise(chain):
        source = before.outputs[0]
        operands = [
            value if operand is source else _operand(shard, member, operand, source, axis) for operand in member.inputs
        ]
        value = shard.copy(member, operands)
    return value


def _can_be_added(editor: GraphEditor, other: gs.Tensor, result: gs.Tensor, op_type: str) -> bool:
    """Return whether parts of an operand can be added to parts of ``result``.

    They can if the operand is a constant that does not widen the result, or a tensor of the same shape. The exception is a
    tensor that an operator of the same ``op_type`` writes for this Add alone: onnxruntime then fuses the Add into one of
    the two operators, and it is not known here into which.
    """
    shape, whole = tuple(other.shape), tuple(result.shape)
    if isinstance(other, gs.Constant):
        return len(shape) <= len(whole) and all(
            size in (1, full) for size, full in zip(shape[::-1], whole[::-1], strict=False)
        )
    writer = editor.writer_type(other) if len(editor.readers(other)) == 1 else None
    return shape == whole and writer != op_type


def _operand(shard: ShardBuilder, member: gs.Node, operand: gs.Tensor, source: gs.Tensor, axis: int) -> gs.Tensor:
    """Return the shard's part of an operand of ``member`` that is not ``source``, the result of the member before it."""
    rank = len(source.shape)
    if member.op == "Add":
        along = axis - rank + len(operand.shape)
        return shard.cut(operand, along) if along >= 0 else operand
    is_per_axis = member.op == "QuantizeLinear" and operand.shape and member.attrs.get("axis", 1) % rank == axis
    return shard.cut(operand, 0) if is_per_axis else operand
