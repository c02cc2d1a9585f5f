"""How an operator is computed some rows, or some heads, at a time: which axis of what it reads and makes goes with them.

Rows are those of a feature map, the first spatial axis of [N, C, H, ...]. Heads are those of attention, the last axis of
[..., heads, tokens, channels] that a product of two activations computes one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.tiling.rows import Window

Along = Literal["rows", "heads"]
ALONG: tuple[Along, ...] = ("rows", "heads")

#: The axis of the rows.
ROWS = 2
#: Computed number by number, and the same whatever numbers stand beside.
ELEMENTWISE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "ThresholdedRelu", "Abs", "Neg"}
    | {"Sqrt", "Exp", "Erf", "Floor", "Ceil", "Reciprocal", "Identity", "Dropout", "Where"}
    | {"Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Pow"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """How an operator is computed along ``axis`` of its result, which is ``source_axis`` of what it reads.

    ``pads`` are the whole operator's own, before all axes and behind, where it has any; ``whole`` are the inputs that every
    tile reads entirely (broadcast along the axis); a tile has at least ``least``.
    """

    along: Along = "rows"
    axis: int = ROWS
    source_axis: int = ROWS
    window: Window = field(default_factory=Window)
    pads: tuple[int, ...] | None = None
    whole: frozenset[str] = frozenset()
    least: int = 1


Sweeps = Mapping[Along, Mapping[str, Sweep]]


def elementwise(graph: Graph, operator: Operator, axis: int) -> Sweep | None:
    """That of an operator which computes number by number; None where a constant, or a shorter shape, has the axis."""
    result = graph.tensors[operator.outputs[0]]
    whole = {name for name in operator.inputs if _extent(graph.tensors[name], result, axis) == 1}
    parts = [name for name in operator.inputs if name not in whole]
    aligned = all(len(graph.tensors[name].shape) == len(result.shape) for name in parts)
    constant = all(_extent(graph.weights[name], result, axis) == 1 for name in operator.weights)
    found = Sweep(axis=axis, source_axis=axis, whole=frozenset(whole))
    return found if parts and aligned and constant else None


def _extent(operand: Tensor, result: Tensor, axis: int) -> int:
    """The elements along an axis of an operand that is broadcast to the result's shape: as many as that has, or one."""
    missing = len(result.shape) - len(operand.shape)
    return operand.shape[axis - missing] if missing <= axis else 1
