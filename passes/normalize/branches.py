"""Take the branch of an If whose condition hangs on the shapes of the inputs alone.

Exporters turn ``if x.dim() == 2`` of a program into an If. Once the inputs are fixed, one branch is never taken, and often
wrong for these shapes, so that onnxruntime refuses the model. What remains computes the same.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, helper, numpy_helper, shape_inference

from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS, standard_opset
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.unknown_operators import all_nodes
from hyps.passes.weights import REFERENCE_BYTES, Model

KnownValues = MutableMapping[str, NDArray[Any]]
Types = MutableMapping[str, TypeProto]

#: What is computed to know a condition: exact on integers and booleans, whoever computes it.
_COMPUTED = frozenset(
    {"Add", "And", "Cast", "Concat", "Equal", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mul", "Not", "Or"}
    | {"ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)


def take_branches(model: Model) -> Rewritten:
    """The same model without branches that its fixed inputs never take; those in branches of other operators included.

    What a body of a Loop or Scan says of its own inputs is not relied on: they may change from round to round.
    """
    if not any(node.op_type == "If" for node in all_nodes(model.proto.graph)):
        return Rewritten(model=model)
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    walk = _Walk(proto, model)
    walk.graph(proto.graph, {value.name: value.type for value in proto.graph.input}, {})
    return Rewritten(model=Model(proto=proto, weights=model.weights) if walk.changes else model, changes=tuple(walk.changes))


class _Walk:
    """Walks graphs in their order, with the types and small values that are known so far."""

    def __init__(self, proto: ModelProto, model: Model) -> None:
        self.changes: list[Change] = []
        self._top = proto.graph
        self._opset = standard_opset(proto)
        self._imports = list(proto.opset_import)
        self._ir_version = proto.ir_version
        self._referenced = model.weights

    def graph(self, graph: GraphProto, types: Mapping[str, TypeProto], values: Mapping[str, NDArray[Any]]) -> None:
        """Take branches in ``graph``, which sees ``types`` and ``values`` from outside."""
        inner_types: Types = ChainMap({}, types)  # type: ignore[arg-type]
        inner_values: KnownValues = ChainMap({}, values)  # type: ignore[arg-type]
        self._add_initializers(graph, inner_types, inner_values)
        kept = []
        pending = list(reversed(graph.node))
        while pending:
            node = pending.pop()
            branch = self._taken(graph, node, inner_values)
            if branch is None:
                self._learn(node, inner_types, inner_values)
                kept.append(node)
                continue
            nodes = list(_inlined(graph, node, branch))
            self._add_initializers(graph, inner_types, inner_values)
            pending += reversed(nodes)
            why = "its condition hangs on shapes alone, which are fixed"
            self.changes.append(
                Change(operator=node.name or node.output[0], what="replaced by the branch it always takes", why=why)
            )
        copies = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)

    def _add_initializers(self, graph: GraphProto, types: Types, values: KnownValues) -> None:
        for tensor in graph.initializer:
            if tensor.name not in types:
                types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
                if tensor.name not in self._referenced and tensor.ByteSize() < REFERENCE_BYTES:
                    values[tensor.name] = numpy_helper.to_array(tensor)

    def _taken(self, graph: GraphProto, node: NodeProto, values: KnownValues) -> GraphProto | None:
        """The branch that an If always takes; None where that is not known, or its weights could not be referred to."""
        if node.op_type != "If" or node.domain not in STANDARD_DOMAINS or node.input[0] not in values:
            return None
        if values[node.input[0]].size != 1:
            return None
        name = "then_branch" if values[node.input[0]].item() else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == name)
        return None if graph is self._top and branch.ByteSize() >= REFERENCE_BYTES else branch

    def _learn(self, node: NodeProto, types: Types, values: KnownValues) -> None:
        """Find out the types of a node's outputs, and its value where that is small and hangs on shapes alone."""
        for inner in subgraphs(node):
            self.graph(inner, types, values)
        if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, self._opset, ""):
            return
        value = self._value(node, types, values)
        if value is not None:
            values[node.output[0]] = value
            types[node.output[0]] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            return
        names = [name for name in node.input if name]
        if any(name not in types for name in names) or any(True for _ in subgraphs(node)):
            return
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        data = {name: numpy_helper.from_array(values[name]) for name in names if name in values}
        try:
            found = shape_inference.infer_node_outputs(
                schema, node, {name: types[name] for name in names}, data, None, self._imports, self._ir_version
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
            return
        types.update(found)

    def _value(self, node: NodeProto, types: Types, values: KnownValues) -> NDArray[Any] | None:
        if node.op_type == "Constant":
            tensor = next((attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR), None)
            small = tensor is not None and tensor.ByteSize() < REFERENCE_BYTES
            return numpy_helper.to_array(tensor) if tensor is not None and small else None
        if node.op_type in ("Shape", "Size") and not node.attribute:
            shape = _shape(types.get(node.input[0]))
            if shape is not None:
                return np.array(shape if node.op_type == "Shape" else np.prod(shape), np.int64)
        if node.op_type not in _COMPUTED or any(name and name not in values for name in node.input):
            return None
        from onnx.reference import ReferenceEvaluator  # few models need it

        feeds = {name: values[name] for name in node.input if name}
        if any(array.dtype.kind not in "iub" for array in feeds.values()):
            return None
        graph = helper.make_graph(
            [node],
            "value",
            [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
            [onnx.ValueInfoProto(name=node.output[0])],
        )
        model = helper.make_model(graph, opset_imports=self._imports, ir_version=self._ir_version)
        try:
            (found,) = ReferenceEvaluator(model).run(None, feeds)
        except (IndexError, RuntimeError, TypeError, ValueError):  # onnxruntime will say what is wrong
            return None
        return np.asarray(found)


def _shape(kind: TypeProto | None) -> list[int] | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dimensions = kind.tensor_type.shape.dim
    return [dim.dim_value for dim in dimensions] if all(dim.HasField("dim_value") for dim in dimensions) else None


def _inlined(graph: GraphProto, choice: NodeProto, branch: GraphProto) -> Iterator[NodeProto]:
    """The nodes of ``branch`` in the place of ``choice``, under names of their own; its initializers go to ``graph``."""
    made = [name for node in branch.node for name in node.output if name] + [tensor.name for tensor in branch.initializer]
    names = {name: f"{choice.output[0]}/{name}" for name in made}
    for tensor in branch.initializer:
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = names[tensor.name]
    for node in branch.node:
        renamed = _renamed(node, names)
        renamed.name = f"{choice.output[0]}/{node.name or '/'.join(node.output)}"
        yield renamed
    for output, value in zip(choice.output, branch.output, strict=True):
        if output:
            yield helper.make_node("Identity", [names.get(value.name, value.name)], [output], f"{output}/taken")


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    copy = _copy(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for inner in subgraphs(copy):
        nodes = [_renamed(each, names) for each in inner.node]
        del inner.node[:]
        inner.node.extend(nodes)
        for value in inner.output:
            value.name = names.get(value.name, value.name)
    return copy


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
