"""Handle operators that onnx does not know but onnxruntime may: contributed, experimental, or from a user's library.

onnx's checker and its shape inference ignore operators of a domain that they do not know. Older converters wrote
experimental operators of the standard domain, which onnxruntime still runs: for the checker these become operators with the
same shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import SLICE_INPUTS_OPSET, STANDARD_DOMAINS, standard_opset
from hyps.passes.weights import Model, skeleton

#: The domain that experimental operators get for onnx's checker.
_EXPERIMENTAL = "hyps.experimental"
_SHAPE_KEEPING = frozenset({"Affine", "ImageScaler", "ParametricSoftplus", "ScaledTanh"})
_END = 2**31 - 1


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield every node of a graph and of the graphs in its nodes' attributes."""
    yield from nodes_within(graph.node)


def nodes_within(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield ``nodes``, each before the nodes of the graphs in its attributes."""
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from nodes_within(inner.node)


def is_foreign(node: NodeProto, opset: int) -> bool:
    """Whether onnx does not know this operator."""
    return node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, opset, "")


def foreign_kinds(proto: ModelProto) -> set[tuple[str, str]]:
    """Return the (domain, operator type) of every operator that onnx does not know, subgraphs included."""
    opset = standard_opset(proto)
    return {(node.domain, node.op_type) for node in all_nodes(proto.graph) if is_foreign(node, opset)}


def foreign_outputs(proto: ModelProto) -> set[str]:
    """Return the names of all outputs of operators that onnx does not know."""
    opset = standard_opset(proto)
    return {name for node in proto.graph.node if is_foreign(node, opset) for name in node.output}


def checkable(model: Model) -> ModelProto:
    """Return the model without its referenced weights, such that onnx checks and infers everything that it knows.

    onnx's checker wants a shape for every input, and a type and a shape for every output; onnxruntime does not. Those that
    are missing become a scalar's.
    """
    bare = skeleton(model, without_trees=True)
    for value in (*bare.graph.input, *bare.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for value in bare.graph.output:
        if value.type.WhichOneof("value") is None:
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, []))
    opset = standard_opset(bare)
    experimental = [node for node in all_nodes(bare.graph) if node.domain in STANDARD_DOMAINS and is_foreign(node, opset)]
    for node in experimental:
        _disguise(node, opset)
    for node in all_nodes(bare.graph):
        if node.op_type == "StringNormalizer" and not any(
            each.name == "stopwords" and each.strings for each in node.attribute
        ):
            node.op_type = "Identity"  # onnx expects it to remove strings, but it removes none
            del node.attribute[:]
    if experimental:
        bare.opset_import.add(domain=_EXPERIMENTAL, version=1)
    return bare


def _disguise(node: NodeProto, opset: int) -> None:
    """Turn an experimental operator into a standard one with the same shapes, or into one that onnx ignores."""
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    if node.op_type in _SHAPE_KEEPING:
        node.op_type = "Identity"
        del node.attribute[:]
    elif node.op_type == "Crop" and opset < SLICE_INPUTS_OPSET and len(attributes.get("border", ())) == 4:
        left, top, right, bottom = attributes["border"]
        height, width = attributes.get("scale", (0, 0))
        ends = [top + height if height else -bottom or _END, left + width if width else -right or _END]
        sliced = helper.make_node("Slice", node.input, node.output, node.name, axes=[2, 3], starts=[top, left], ends=ends)
        node.CopyFrom(sliced)
    else:
        node.domain = _EXPERIMENTAL
