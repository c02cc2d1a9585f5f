"""Build one shard of an operator: cut its operands, and copy for it what belongs to it alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.weights import Origin, part_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Elements ``start .. stop`` of the ``width`` of ``operator``: its shard ``index`` of ``count``."""

    operator: str
    start: int
    stop: int
    width: int
    index: int
    count: int

    def name(self, name: str) -> str:
        """Return the name of what this shard has of an operator or tensor called ``name``."""
        return part_name(name, "shard", self.index, self.count)

    def origin(self, operator: str) -> Origin:
        """Return the origin of this shard's part of ``operator``."""
        return Origin(kind="shard", operator=operator, index=self.index, count=self.count)


def shard_parts(operator: str, widths: Sequence[int]) -> list[Part]:
    """Return the parts of an operator that take ``widths`` elements, one after the other."""
    stops = list(itertools.accumulate(widths))
    return [
        Part(operator=operator, start=stop - width, stop=stop, width=stops[-1], index=index, count=len(widths))
        for index, (width, stop) in enumerate(zip(widths, stops, strict=True))
    ]


def merge_origin(operator: str, count: int) -> Origin:
    """Return the origin of what merges the ``count`` shards of an operator."""
    return Origin(kind="merge", operator=operator, index=0, count=count)


class ShardBuilder:
    """The nodes of one shard, in their order, as they are made."""

    def __init__(self, editor: GraphEditor, part: Part) -> None:
        self.editor = editor
        self.part = part
        self.nodes: list[gs.Node] = []

    def copy(
        self,
        node: gs.Node,
        operands: Iterable[gs.Tensor],
        attributes: Mapping[str, Any] | None = None,
        result: gs.Tensor | None = None,
    ) -> gs.Tensor:
        """Add the shard's part of ``node`` and return its result: ``result``, or a tensor of the shard's own."""
        name, output = (self.part.name(each) for each in (node.name, node.outputs[0].name))
        target = output if result is None else result
        origin = self.part.origin(node.name)
        return self._add(self.editor.copy(node, name, operands, target, origin=origin, attributes=attributes))

    def uncut(self, tensor: gs.Tensor) -> gs.Tensor:
        """Return an operand as it is. A DequantizeLinear before it is copied: onnxruntime computes both as one."""
        before = self._dequantize(tensor)
        return tensor if before is None else self._copy_operand(before, before.inputs)

    def cut(self, tensor: gs.Tensor, axis: int) -> gs.Tensor:
        """Return the shard's part of an operand along ``axis``, in proportion.

        A scalar, or one element along the axis, is the same for all shards.
        """
        if not tensor.shape:
            return tensor
        axis %= len(tensor.shape)
        size = tensor.shape[axis]
        if size == 1:
            return self.uncut(tensor)
        start, stop = (size * bound // self.part.width for bound in (self.part.start, self.part.stop))
        return self.rows(tensor, axis, start, stop)

    def rows(self, tensor: gs.Tensor, axis: int, start: int, stop: int) -> gs.Tensor:
        """Return elements ``start..stop`` of an operand along ``axis``: a part of a constant, or a Slice's result."""
        if isinstance(tensor, gs.Constant):
            return self.editor.part(tensor, axis, start, stop)
        before = self._dequantize(tensor)
        if before is None:
            name = self.part.name(f"{self.part.operator}/{tensor.name}")
            origin = self.part.origin(self.part.operator)
            return self._add(self.editor.slice(tensor, name, axis, start, stop, origin=origin))
        stored, *others = before.inputs
        along = before.attrs.get("axis", 1) % len(tensor.shape) == axis
        scales = [
            self.editor.part(other, 0, start, stop) if along and other.shape and other.shape[0] > 1 else other
            for other in others
        ]
        return self._copy_operand(before, [self.rows(stored, axis, start, stop), *scales])

    def _copy_operand(self, node: gs.Node, operands: Iterable[gs.Tensor]) -> gs.Tensor:
        """Add a copy of ``node``, which writes an operand, for this shard; without other readers the first goes."""
        self.editor.remove_if_unread(node)
        name, output = (self.part.name(f"{self.part.operator}/{each}") for each in (node.name, node.outputs[0].name))
        return self._add(self.editor.copy(node, name, operands, output, origin=self.part.origin(self.part.operator)))

    def _add(self, node: gs.Node) -> gs.Tensor:
        self.nodes.append(node)
        return node.outputs[0]

    def _dequantize(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the DequantizeLinear with constant scales that writes an operand."""
        before = self.editor.writer(tensor)
        if before is None or before.op != "DequantizeLinear" or (before.domain or "") not in STANDARD_DOMAINS:
            return None
        return before if all(isinstance(other, gs.Constant) for other in before.inputs[1:]) else None
