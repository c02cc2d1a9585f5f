"""Which operators can be computed tile by tile, some rows or some heads at a time, bit for bit.

Elu, Selu, Softplus, Mish, Celu, Log, Sin and LRN treat the last few numbers of a tensor otherwise than the rest, by a unit
in the last place (onnxruntime 1.31, x86-64): a tile would end elsewhere than the whole. They are left out, as is what is
not known.
"""

from __future__ import annotations

from onnx import NodeProto, helper

from hyps.passes.graph import STANDARD_DOMAINS, Graph, Operator
from hyps.passes.tiling.head_sweeps import head_sweeps
from hyps.passes.tiling.row_sweeps import row_sweeps
from hyps.passes.tiling.sweep import ALONG, ROWS, Sweeps
from hyps.passes.weights import Model


def sweeps(model: Model, graph: Graph, threads: int) -> Sweeps:
    """How operators can be tiled when a session has up to so many threads, by what they are tiled along and by name."""
    nodes = {node.name: node for node in model.proto.graph.node}
    if any(_is_misjudged(graph, operator, nodes[operator.name]) for operator in graph.operators):
        return {along: {} for along in ALONG}
    plain = {
        operator.name: nodes[operator.name] for operator in graph.operators if _plain(graph, operator, nodes[operator.name])
    }
    return {"rows": row_sweeps(model, graph, plain, threads), "heads": head_sweeps(model, graph, plain, threads)}


def _is_misjudged(graph: Graph, operator: Operator, node: NodeProto) -> bool:
    """Whether a pooling's inferred shape has a window that starts behind its input: onnxruntime leaves that out (ceil_mode).

    Then the shapes of all that follows are not to be trusted.
    """
    if not any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute) or not operator.inputs:
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    source, result = graph.tensors[operator.inputs[0]].shape[ROWS:], graph.tensors[operator.outputs[0]].shape[ROWS:]
    axes = len(source)
    strides, pads = attributes.get("strides", [1] * axes), attributes.get("pads", [0] * 2 * axes)
    spans = zip(source, result, strides, pads[:axes], strict=True)
    return any((after - 1) * stride >= before + pad for before, after, stride, pad in spans)


def _plain(graph: Graph, operator: Operator, node: NodeProto) -> bool:
    """Whether it has one float32 result of float32 operands (conditions and amounts apart), and no graphs inside."""
    if len(operator.outputs) != 1 or not operator.inputs or operator.embedded_bytes or node.domain not in STANDARD_DOMAINS:
        return False
    others = {"Pad": node.input[1:], "Where": node.input[:1]}.get(node.op_type, ())
    operands = {name: graph.tensors[name] for name in operator.inputs} | {
        name: graph.weights[name] for name in operator.weights
    }
    floats = all(tensor.dtype == "float32" for name, tensor in operands.items() if name not in others)
    return floats and graph.tensors[operator.outputs[0]].dtype == "float32"
