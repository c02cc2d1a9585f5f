"""What all splits share: operands are cut, what belongs to an operator is copied into its shards, these take its place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from hyps.passes.errors import UnsupportedModel
from hyps.passes.onnx_ops import SLICE_INPUTS_OPSET
from hyps.passes.weights import Model, Weight, placeholder


def shard_name(name: str, index: int, count: int) -> str:
    """The name of one shard of an operator or a tensor, counted from one."""
    return f"{name}/shard{index + 1}of{count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Elements ``start .. stop`` of ``width``: shard ``index`` of ``count`` of ``operator``."""

    operator: str
    start: int
    stop: int
    width: int
    index: int
    count: int

    def name(self, name: str) -> str:
        """What belongs to this shard, called after what it was made of."""
        return shard_name(name, self.index, self.count)


def shard_parts(operator: str, widths: Sequence[int]) -> list[Part]:
    """The shards of an operator that take ``widths``, one after the other."""
    stops = list(itertools.accumulate(widths))
    return [
        Part(operator=operator, start=stop - width, stop=stop, width=stops[-1], index=index, count=len(widths))
        for index, (width, stop) in enumerate(zip(widths, stops, strict=True))
    ]


class GraphEditor:
    """Splits nodes of one graphsurgeon graph in place; what is cut of referenced weights is added to ``weights``."""

    def __init__(self, model: Model) -> None:
        self.graph: gs.Graph = _translated(gs.import_onnx, model.proto)
        self.nodes: Mapping[str, gs.Node] = {node.name: node for node in self.graph.nodes}
        #: What wrote each tensor that one operator alone reads, before anything was split.
        self.writer: Mapping[str, str] = {
            result.name: node.op for node in self.graph.nodes for result in node.outputs if len(result.outputs) == 1
        }
        self._model = model
        self._weights: dict[str, Weight] = dict(model.weights)
        self._own = {id(node) for node in self.graph.nodes}
        self._constants: dict[str, gs.Constant] = {}
        self._copied: set[int] = set()
        self._replacements: dict[int, list[gs.Node]] = {}

    def finish(self) -> Model:
        """The model with the shards where the nodes that were split stood."""
        nodes = itertools.chain.from_iterable(self._replacements.get(id(node), [node]) for node in self.graph.nodes)
        self.graph.nodes[:] = [node for node in nodes if not self._is_left_over(node)]
        proto = _translated(gs.export_onnx, self.graph, do_type_check=False)
        proto.ir_version = self._model.proto.ir_version
        kept = {tensor.name for tensor in proto.graph.initializer}
        weights = {name: weight for name, weight in self._weights.items() if name in kept}
        return Model(proto=proto, weights=weights)

    def replace(self, chain: Sequence[gs.Node], nodes: list[gs.Node]) -> None:
        """Put ``nodes``, which write what the last of ``chain`` wrote, in the place of the chain."""
        for member in chain:
            member.inputs.clear()
            member.outputs.clear()
            self._replacements[id(member)] = []
        self._replacements[id(chain[-1])] = nodes

    def follower(self, result: gs.Tensor) -> gs.Node | None:
        """The one operator that reads ``result``, where nothing else does."""
        if len(result.outputs) != 1 or any(result is output for output in self.graph.outputs):
            return None
        after = result.outputs[0]
        return after if id(after) in self._own else None  # else it stands in a branch or a loop

    def _is_left_over(self, node: gs.Node) -> bool:
        """Whether each shard has its own copy of a node, and nothing else reads the first."""
        result = node.outputs[0] if id(node) in self._copied else None
        return result is not None and not result.outputs and all(result is not output for output in self.graph.outputs)

    def own(self, tensor: gs.Tensor, part: Part, nodes: list[gs.Node]) -> gs.Tensor:
        """The operand as it is. What dequantises it is copied: onnxruntime computes both as one."""
        before = _dequantised(tensor)
        if before is None:
            return tensor
        return self._copy(before, list(before.inputs), part, nodes)

    def cut(self, tensor: gs.Tensor, part: Part, axis: int, nodes: list[gs.Node]) -> gs.Tensor:
        """The shard's part of an operand along ``axis``, in proportion; one element there is shared by all shards.

        What has to be computed for it goes to ``nodes``.
        """
        if not tensor.shape:
            return tensor
        axis %= len(tensor.shape)
        size = tensor.shape[axis]
        if size == 1:
            return self.own(tensor, part, nodes)
        start, stop = (size * bound // part.width for bound in (part.start, part.stop))
        return self.rows(tensor, part, axis, start, stop, nodes)

    def rows(self, tensor: gs.Tensor, part: Part, axis: int, start: int, stop: int, nodes: list[gs.Node]) -> gs.Tensor:
        """Elements ``start..stop`` of an operand along ``axis``: a part of a constant, or a Slice."""
        if isinstance(tensor, gs.Constant):
            return self._cut_constant(tensor, axis, start, stop)
        before = _dequantised(tensor)
        if before is None:
            return self._slice(tensor, part, axis, start, stop, nodes)
        stored, *others = before.inputs
        along = before.attrs.get("axis", 1) % len(tensor.shape) == axis
        scales = [
            self._cut_constant(other, 0, start, stop) if along and other.shape and other.shape[0] > 1 else other
            for other in others
        ]
        return self._copy(before, [self.rows(stored, part, axis, start, stop, nodes), *scales], part, nodes)

    def _copy(self, node: gs.Node, operands: list[gs.Tensor], part: Part, nodes: list[gs.Node]) -> gs.Variable:
        self._copied.add(id(node))
        written = node.outputs[0]
        result = gs.Variable(part.name(f"{part.operator}/{written.name}"), dtype=written.dtype)
        name = part.name(f"{part.operator}/{node.name}")
        nodes.append(gs.Node(node.op, name, dict(node.attrs), operands, [result]))
        return result

    def _slice(self, tensor: gs.Tensor, part: Part, axis: int, start: int, stop: int, nodes: list[gs.Node]) -> gs.Variable:
        name = part.name(f"{part.operator}/{tensor.name}")
        result = gs.Variable(name, dtype=tensor.dtype)
        bounds = {"starts": [start], "ends": [stop], "axes": [axis]}
        if self.graph.opset < SLICE_INPUTS_OPSET:
            nodes.append(gs.Node("Slice", name, bounds, [tensor], [result]))
        else:
            values = [gs.Constant(f"{name}/{key}", np.array(value, np.int64)) for key, value in bounds.items()]
            nodes.append(gs.Node("Slice", name, {}, [tensor, *values], [result]))
        return result

    def _cut_constant(self, tensor: gs.Constant, axis: int, start: int, stop: int) -> gs.Constant:
        name = f"{tensor.name}[{':,' * axis}{start}:{stop}]"
        if name not in self._constants:
            shape = list(tensor.shape)
            shape[axis] = stop - start
            weight = self._weights.get(tensor.name)
            if weight is None:
                values = np.take(tensor.values, range(start, stop), axis=axis)
                proto = numpy_helper.from_array(values, name)
            else:
                self._weights[name] = weight.slice(axis, start, stop, tuple(tensor.shape))
                proto = placeholder(name, dtype_to_onnx(tensor.dtype), tuple(shape))
            self._constants[name] = gs.Constant(name, LazyValues(proto))
        return self._constants[name]


def _dequantised(tensor: gs.Tensor) -> gs.Node | None:
    """The DequantizeLinear with constant scales that writes an operand."""
    before = tensor.inputs[0] if isinstance(tensor, gs.Variable) and tensor.inputs else None
    if before is None or before.op != "DequantizeLinear" or before.domain not in {None, "", "ai.onnx"}:
        return None
    return before if all(isinstance(other, gs.Constant) for other in before.inputs[1:]) else None


def _translated(translate: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What graphsurgeon makes of a model. It raises anything on types and names that the checker lets pass."""
    try:
        return translate(*arguments, **options)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedModel(f"onnx-graphsurgeon cannot read the model ({reason}); export it again") from None
