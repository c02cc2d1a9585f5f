"""Define the rules for computing operators in tiles: some rows, or some heads, at a time.

Rows are those of a feature map, the first spatial axis of [N, C, H, ...]. Heads are those of attention: the third axis
from the end of [..., heads, tokens, channels], along which a product of two activations computes one matrix after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.receptive_field import SlidingWindow

TileAxis = Literal["rows", "heads"]
TILE_AXES: tuple[TileAxis, ...] = ("rows", "heads")

#: The axis of the rows.
ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingRule:
    """A rule for computing an operator in tiles along ``axis`` of its result, which is ``source_axis`` of its inputs.

    ``window`` says which part of the inputs a tile reads. ``pads`` are the whole operator's own, first before all axes and
    then after them, where it has any. Every tile reads the ``broadcast_inputs`` entirely: they have one element along the
    axis. A tile has at least ``min_extent`` elements along the axis.
    """

    tile_axis: TileAxis = "rows"
    axis: int = ROWS
    source_axis: int = ROWS
    window: SlidingWindow = field(default_factory=SlidingWindow)
    pads: tuple[int, ...] | None = None
    broadcast_inputs: frozenset[str] = frozenset()
    min_extent: int = 1


#: The rules of a graph: by what its operators are tiled along, and by the operator's name.
TilingRules = Mapping[TileAxis, Mapping[str, TilingRule]]


def elementwise_rule(graph: Graph, operator: Operator, axis: int) -> TilingRule | None:
    """Return the rule of an operator that computes element by element, in tiles along ``axis`` of its result.

    It is None where a weight, or an input with fewer axes than the result, would have to be sliced along the axis.
    """
    result = graph.tensors[operator.outputs[0]]
    broadcast = {name for name in operator.inputs if _extent(graph.tensors[name], result, axis) == 1}
    sliced = [name for name in operator.inputs if name not in broadcast]
    same_rank = all(len(graph.tensors[name].shape) == len(result.shape) for name in sliced)
    weights_broadcast = all(_extent(graph.weights[name], result, axis) == 1 for name in operator.weights)
    rule = TilingRule(axis=axis, source_axis=axis, broadcast_inputs=frozenset(broadcast))
    return rule if sliced and same_rank and weights_broadcast else None


def _extent(operand: Tensor, result: Tensor, axis: int) -> int:
    """Return an operand's elements along ``axis`` of the result that it is broadcast to: as many as the result's, or one."""
    missing = len(result.shape) - len(operand.shape)
    return operand.shape[axis - missing] if missing <= axis else 1
