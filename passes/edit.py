"""Edit a model's graph: the one editor that every rewrite uses.

The editor holds a graph's nodes, constants and types as they are in the model. Only what a rewrite asks for becomes an
onnx-graphsurgeon node or tensor, and only new nodes are exported from there. What a rewrite leaves alone stays byte for byte
as it was: graphsurgeon drops attributes of kinds that it does not know, documentation, and types that are no tensors.

It is also faster. Measured on a model of 100,000 nodes (Conv, Relu, Add; 67,000 constants), process time on one core of an
x86-64 server: graphsurgeon's own import takes 5.0 s, one replacement 0.06 s and export 2.9 s. This editor needs 0.8 s to
index the graph and 0.6 s to finish; plain protobuf without an index needs 0.06 s to copy and 0.18 s to replace one node.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter
from onnx_graphsurgeon.ir.tensor import LazyValues

from hyps.passes.graph import captured
from hyps.passes.onnx_ops import SLICE_INPUTS_OPSET, standard_opset
from hyps.passes.weights import Model, Origin, Weight, copy_around, placeholder

#: The kinds of attributes that become Python values. Others stay as they are.
_HELD = frozenset(
    {AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING}
    | {AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS}
)


class GraphEditor:
    """A draft of a model; what is not replaced is shared with the given model, which never changes.

    A rewrite may put others into ``nodes``, ``constants``, ``weights``, ``inputs`` and ``value_info``, but must not change
    the protobuf values in them. The methods need nodes with names of their own, as every loaded model has them.
    """

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self.opset = standard_opset(model.proto)
        self.nodes: list[NodeProto] = list(graph.node)
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.weights: dict[str, Weight] = dict(model.weights)
        self.inputs = list(graph.input)
        self.value_info = list(graph.value_info)
        self.outputs = frozenset(value.name for value in graph.output)
        self._model = model
        self._origins = dict(model.origins)
        self._tensors: dict[str, gs.Tensor] = {}
        self._operators: dict[str, gs.Node] = {}
        self._copied: dict[str, gs.Node] = {}
        self._replacements: dict[str, list[NodeProto]] = {}
        self._removable: set[str] = set()

    def finish(self) -> Model:
        """Return the edited model, without constants and types that no operator needs any more."""
        nodes, used = self._remaining()
        written = {name for node in nodes for name in node.output}
        constants = [tensor for name, tensor in self.constants.items() if name in used]
        types = [value for value in self.value_info if value.name in written]
        proto = copy_around(self._model.proto, frozenset({"node", "initializer", "value_info", "input"}))
        graph = proto.graph
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        graph.value_info.extend(types)
        graph.input.extend(self.inputs)
        weights = {name: weight for name, weight in self.weights.items() if name in used}
        origins = self._origins and {node.name: self._origins[node.name] for node in nodes if node.name in self._origins}
        return Model(proto=proto, weights=weights, origins=origins, row_reads=self._model.row_reads)

    def operator(self, name: str) -> gs.Node:
        """Return the node of this name as graphsurgeon's; attributes that it cannot hold are `AttributeProto` values."""
        if name not in self._operators:
            node = self._nodes[name]
            held = [attribute for attribute in node.attribute if _is_held(attribute)]
            attributes: dict[str, Any] = {attribute.name: attribute for attribute in node.attribute}
            attributes |= OnnxImporter.import_attributes(held, {}, {}, self.opset, [])
            inputs, outputs = ([self.tensor(each) for each in names] for names in (node.input, node.output))
            domain = node.domain if node.HasField("domain") else None
            self._operators[name] = gs.Node(node.op_type, name, attributes, inputs, outputs, domain)
        return self._operators[name]

    def tensor(self, name: str) -> gs.Tensor:
        """Return the tensor of this name as graphsurgeon's, one object for each name: a constant, or a variable."""
        if not name:
            return gs.Variable.empty()
        if name not in self._tensors:
            constant = self.constants.get(name)
            made = gs.Variable(name, shape=self._shapes.get(name)) if constant is None else _lazy(constant)
            self._tensors[name] = made
        return self._tensors[name]

    def writer(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the operator of the given model that writes ``tensor``."""
        name = self._writers.get(tensor.name)
        return None if name is None or name in self._replacements else self.operator(name)

    def writer_type(self, tensor: gs.Tensor) -> str | None:
        """Return the type of the operator of the given model that writes ``tensor``, even if it was replaced since."""
        name = self._writers.get(tensor.name)
        return None if name is None else self._nodes[name].op_type

    def readers(self, tensor: gs.Tensor) -> Sequence[str]:
        """Return the operators of the given model that read ``tensor``, once for each read; "" stands for a subgraph."""
        return self._readers.get(tensor.name, ())

    def follower(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the one operator that reads ``tensor``, where nothing else does."""
        readers = self.readers(tensor)
        if len(readers) != 1 or tensor.name in self.outputs or not readers[0] or readers[0] in self._replacements:
            return None
        return self.operator(readers[0])

    def constant(self, values: TensorProto, weight: Weight | None = None) -> gs.Constant:
        """Return a new constant; its bytes are ``weight``'s where there is one."""
        self.constants[values.name] = values
        if weight is not None:
            self.weights[values.name] = weight
        made = self._tensors[values.name] = _lazy(values)
        return made

    def integers(self, name: str, values: Sequence[int]) -> gs.Constant:
        """Return a new constant vector of 64-bit integers."""
        return self.constant(numpy_helper.from_array(np.array(values, np.int64), name))

    def part(self, tensor: gs.Constant, axis: int, start: int, stop: int) -> gs.Constant:
        """Return elements ``start..stop`` of a constant along ``axis`` as a constant; one object for each part."""
        name = f"{tensor.name}[{':,' * axis}{start}:{stop}]"
        if name in self.constants:
            return self.tensor(name)
        whole, weight = self.constants[tensor.name], self.weights.get(tensor.name)
        if weight is None:
            values = np.take(numpy_helper.to_array(whole), range(start, stop), axis=axis)
            return self.constant(numpy_helper.from_array(values, name))
        shape = (*whole.dims[:axis], stop - start, *whole.dims[axis + 1 :])
        held = placeholder(name, whole.data_type, shape)
        return self.constant(held, weight.slice(axis, start, stop, tuple(whole.dims)))

    def node(
        self,
        op_type: str,
        name: str,
        inputs: Iterable[gs.Tensor],
        output: gs.Tensor | str,
        *,
        origin: Origin | None = None,
        **attributes: Any,
    ) -> gs.Node:
        """Return a new standard operator with one output; `replace` puts it into the graph."""
        made = gs.Variable(output) if isinstance(output, str) else output
        self._record(name, origin)
        return gs.Node(op_type, name, attributes, list(inputs), [made])

    def copy(
        self,
        node: gs.Node,
        name: str,
        inputs: Iterable[gs.Tensor],
        output: gs.Tensor | str,
        *,
        origin: Origin | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> gs.Node:
        """Return a copy of ``node``, an operator of the given model, that reads and writes other tensors.

        ``attributes`` are all attributes of the copy; by default it has those of ``node``.
        """
        made = gs.Variable(output) if isinstance(output, str) else output
        self._record(name, origin)
        self._copied[name] = node
        return gs.Node(
            node.op, name, dict(node.attrs if attributes is None else attributes), list(inputs), [made], node.domain
        )

    def slice(
        self,
        tensor: gs.Tensor,
        name: str,
        axis: int,
        start: int,
        stop: int,
        *,
        origin: Origin | None = None,
        bounds: tuple[str, str, str] = ("starts", "ends", "axes"),
    ) -> gs.Node:
        """Return a Slice called ``name``, as is its result, of ``start..stop`` along ``axis``.

        Its constants end in the names of ``bounds``.
        """
        values = ([start], [stop], [axis])
        if self.opset < SLICE_INPUTS_OPSET:
            named = {"starts": [start], "ends": [stop], "axes": [axis]}
            return self.node("Slice", name, [tensor], name, origin=origin, **named)
        given = [self.integers(f"{name}/{bound}", value) for bound, value in zip(bounds, values, strict=True)]
        return self.node("Slice", name, [tensor, *given], name, origin=origin)

    def replace(self, nodes: Sequence[gs.Node], by: Iterable[gs.Node], *, at: gs.Node | None = None) -> None:
        """Put new nodes in the place of ``nodes``: where ``at`` stood, or else the last of them."""
        self._replacements |= {node.name: [] for node in nodes}
        self._replacements[(at or nodes[-1]).name] = [self._exported(node) for node in by]

    def remove(self, name: str) -> None:
        """Remove an operator of the given model."""
        self._replacements[name] = []

    def remove_if_unread(self, node: gs.Node) -> None:
        """Remove an operator of the given model if nothing reads its results in the end."""
        self._removable.add(node.name)

    def _record(self, name: str, origin: Origin | None) -> None:
        if origin is not None:
            self._origins[name] = replace(origin, parent=self._model.origins.get(origin.operator))

    def _exported(self, node: gs.Node) -> NodeProto:
        """Return the protobuf of a new node; a copy takes over whatever was not changed."""
        source = self._copied.get(node.name)
        if source is None:
            exported: NodeProto = OnnxExporter.export_node(node)
            return exported
        proto = NodeProto()
        proto.CopyFrom(self._nodes[source.name])
        proto.name = node.name
        proto.input[:] = [tensor.name for tensor in node.inputs]
        proto.output[:] = [tensor.name for tensor in node.outputs]
        given = {attribute.name: attribute for attribute in self._nodes[source.name].attribute}
        del proto.attribute[:]
        for name, value in node.attrs.items():
            is_given = name in given and source.attrs[name] is value
            proto.attribute.extend([given[name]] if is_given else OnnxExporter.export_attributes({name: value}))
        return proto

    def _remaining(self) -> tuple[list[NodeProto], set[str]]:
        """Return the nodes of the edited graph, and the names of what they or the model's outputs read."""
        nodes = self.nodes
        if self._replacements:
            nodes = [*itertools.chain.from_iterable(self._replacements.get(node.name, (node,)) for node in nodes)]
        used, removed = set(self.outputs), set()
        for node in nodes:
            if node.name not in self._removable:
                used.update(node.input, captured(node))
        for node in reversed(nodes) if self._removable else ():
            if node.name in self._removable:
                if used.isdisjoint(node.output):
                    removed.add(node.name)
                else:
                    used.update(node.input)
        return [node for node in nodes if node.name not in removed] if removed else nodes, used

    @cached_property
    def _nodes(self) -> Mapping[str, NodeProto]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _writers(self) -> Mapping[str, str]:
        return {name: node.name for node in self.nodes for name in node.output}

    @cached_property
    def _readers(self) -> Mapping[str, Sequence[str]]:
        readers = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                readers[name].append(node.name)
            for name in captured(node):
                readers[name].append("")
        return readers

    @cached_property
    def _shapes(self) -> Mapping[str, list[int]]:
        return {
            value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            for value in (*self.value_info, *self.inputs, *self._model.proto.graph.output)
        }


def _is_held(attribute: AttributeProto) -> bool:
    """Whether graphsurgeon holds an attribute without loss. It decodes text, and drops what it does not know."""
    is_text = attribute.s.isascii() and all(text.isascii() for text in attribute.strings)
    return attribute.type in _HELD and is_text and not attribute.ref_attr_name


def _lazy(values: TensorProto) -> gs.Constant:
    return gs.Constant(values.name, LazyValues(values))
