"""The layout of a horizontal split: along which axes an operator's operands are cut, and how wide its shards are.

Hadidi, sections 4.2 and 4.3, tables 4.1 to 4.3:

- By *output* (convolutions: by *channel*) every shard computes some columns or channels of the result, from the weights for
  them.
- By *input* (convolutions: by *filter*) every shard adds up some of the products, from a part of the input and the weights
  for it.
- *Spatially* every shard computes some rows of a convolution's result, from those rows of its input and a halo, with all
  weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx import NodeProto

from hyps.passes.graph import Graph, Tensor
from hyps.passes.mlas import WIDTH_STEP
from hyps.passes.onnx_ops import CONVOLUTIONS, Shape

Method = Literal["output", "input", "spatial"]
METHODS: tuple[Method, ...] = ("output", "spatial", "input")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantValues:
    """A graph's shapes and constants by tensor name.

    A constant is a weight, or what a DequantizeLinear makes of a weight alone: the entry is then the stored weight.
    """

    shapes: Mapping[str, Shape]
    constants: Mapping[str, Tensor]

    @staticmethod
    def of(graph: Graph) -> ConstantValues:
        """Return the shapes and constants of a graph."""
        shapes = {name: tensor.shape for name, tensor in itertools.chain(graph.tensors.items(), graph.weights.items())}
        constants = dict(graph.weights)
        for operator in graph.operators:
            if operator.op_type == "DequantizeLinear" and not operator.inputs:
                stored, scale = (graph.weights.get(name) for name in (*operator.weights[:2], "")[:2])
                if stored is not None and scale is not None and len(scale.shape) < 2:  # not one scale for each block
                    constants[operator.outputs[0]] = stored
        return ConstantValues(shapes=shapes, constants=constants)


#: The most shards of one operator. Each takes some kB and a step's time; a damaged model may have 2^40 rows.
MOST_SHARDS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLayout:
    """The layout of one operator split by one method.

    ``axes`` gives, by the position of each operand that is cut, the axis along which it is cut. An operand is cut in
    proportion to ``width`` elements, of which a shard takes a multiple of ``step``; all shards share an operand that has one
    element along its axis. ``axis`` is the axis of the result, not negative; None where the results are added up.
    ``source`` and ``weight`` are the positions of the two factors.
    """

    method: Method
    axes: Mapping[int, int]
    axis: int | None
    width: int
    step: int = WIDTH_STEP
    source: int = 0
    weight: int = 1
    groups: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_shards(self) -> int:
        """The largest number of shards."""
        return max(1, min(self.width // self.step, MOST_SHARDS))

    def widest(self, count: int) -> int:
        """Return the width of the widest of ``count`` shards."""
        steps, rest = divmod(self.width, self.step)
        each, extra = divmod(steps, count)
        return max((each + (extra > 0)) * self.step, each * self.step + rest)

    def widths(self, count: int) -> tuple[int, ...]:
        """Return the widths of ``count`` shards, as equal as multiples of the step allow; the last takes the rest."""
        return shard_widths(self.width, count, self.step)


def shard_widths(width: int, count: int, step: int = WIDTH_STEP) -> tuple[int, ...]:
    """Return ``width`` in ``count`` shards, as equal as multiples of ``step`` allow; the last takes the rest."""
    steps, rest = divmod(width, step)
    each, extra = divmod(steps, count)
    widths = [(each + (index < extra)) * step for index in range(count)]
    widths[-1] += rest
    return tuple(widths)


def method_phrase(node: NodeProto, method: Method) -> str:
    """Return the method in Hadidi's words: convolutions by channel or by filter, products by output or by input."""
    if method == "spatial":
        return "spatially"
    convolves = node.op_type in CONVOLUTIONS
    return f"by {({'output': 'channel', 'input': 'filter'} if convolves else {}).get(method, method)}"
