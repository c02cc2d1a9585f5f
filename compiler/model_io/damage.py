"""Refuse what only a damaged or hostile model holds, and what no pass expects: names that are no text, unknown types.

onnx's checker accepts all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from hyps.compiler.errors import ModelFileError
from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.unknown_operators import all_nodes


def check_names(path: Path, proto: ModelProto) -> None:
    """Raise `ModelFileError` unless every name is text: protobuf returns names that are no UTF-8 as bytes."""
    if any(isinstance(name, bytes) for name in _names(proto)):
        raise ModelFileError(f"{path} has names that are no text; it is damaged: export or copy it again")


def check_graph(path: Path, graph: GraphProto) -> None:
    """Raise `ModelFileError` for damage in a graph whose local functions are inlined, or in the graphs inside it."""
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if problem := _attribute_problem(node, attribute):
                what = f"attribute {attribute.name!r} of {node.op_type} {node.name or node.output[:1]!r}"
                raise ModelFileError(f"{path} is damaged: {what} {problem}; export or copy it again")
    for each in _graphs(graph):
        for value in (*each.input, *each.value_info, *each.output):
            if not _is_known(value.type):
                raise ModelFileError(
                    f"{path} is damaged: {value.name!r} has an element type that ONNX does not have; export or copy it again"
                )
        for tensor in each.initializer:
            if any(size < 0 for size in tensor.dims):
                shape = list(tensor.dims)
                raise ModelFileError(
                    f"{path} is damaged: weight {tensor.name!r} has the shape {shape}; export or copy it again"
                )


def _attribute_problem(node: NodeProto, attribute: AttributeProto) -> str | None:
    """Return what is wrong with an attribute, as the rest of a sentence about it."""
    if attribute.ref_attr_name:
        return "refers to an attribute of a function, and is in none"
    if attribute.type == AttributeProto.STRING and node.domain in STANDARD_DOMAINS:
        try:
            attribute.s.decode()
        except UnicodeDecodeError:
            return "is no text"
    tensors = [attribute.t] if attribute.type == AttributeProto.TENSOR else attribute.tensors
    if any(tensor.data_type not in TensorProto.DataType.values() for tensor in tensors):
        return "has an element type that ONNX does not have"
    if any(size < 0 for tensor in tensors for size in tensor.dims):
        return "is a tensor of negative size"
    return None


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in all_nodes(graph):
        yield from subgraphs(node)


def _is_known(kind: TypeProto) -> bool:
    """Return whether a type's element type is one of ONNX's. A tensor's may be left open (0) where it is inferred."""
    if kind.HasField("optional_type"):
        return _is_known(kind.optional_type.elem_type)
    if kind.HasField("sequence_type"):
        return _is_known(kind.sequence_type.elem_type)
    return kind.tensor_type.elem_type in TensorProto.DataType.values()


def _names(proto: ModelProto) -> Iterator[str | bytes]:
    yield from (entry.domain for entry in proto.opset_import)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
        yield from (entry.domain for entry in function.opset_import)
        yield from _node_names(function.node)
        yield from _value_names(function.value_info)
    yield from _graph_names(proto.graph)


def _node_names(nodes: Iterable[NodeProto]) -> Iterator[str | bytes]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (text for attribute in node.attribute for text in (attribute.name, attribute.ref_attr_name))
        for inner in subgraphs(node):
            yield from _graph_names(inner)


def _graph_names(graph: GraphProto) -> Iterator[str | bytes]:
    yield from (graph.name, graph.doc_string)
    yield from _node_names(graph.node)
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    yield from _value_names((*graph.input, *graph.value_info, *graph.output))


def _value_names(values: Iterable[ValueInfoProto]) -> Iterator[str | bytes]:
    for value in values:
        yield value.name
        yield from (dimension.dim_param for dimension in value.type.tensor_type.shape.dim)
