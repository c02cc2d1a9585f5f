"""Find the operators that can be computed tile by tile, some rows or some heads at a time, bit for bit.

Operators whose kernels are not known to give an element the same bits wherever it stands are left out
(`hyps.passes.mlas.POSITION_INDEPENDENT`).
"""

from __future__ import annotations

from onnx import NodeProto

from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import STANDARD_DOMAINS, attributes_of, spatial_strides
from hyps.passes.tiling.head_rules import head_rules
from hyps.passes.tiling.row_rules import row_rules
from hyps.passes.tiling.rules import ROWS, TILE_AXES, TilingRules
from hyps.passes.weights import Model


def tiling_rules(model: Model, graph: Graph, threads: int) -> TilingRules:
    """Return how operators can be tiled when a session has up to ``threads`` threads.

    It is empty for a model with a pooling whose inferred shape onnxruntime contradicts.
    """
    nodes = {node.name: node for node in model.proto.graph.node}
    if any(_has_wrong_shape(graph, operator, nodes[operator.name]) for operator in graph.operators):
        return {tile_axis: {} for tile_axis in TILE_AXES}
    plain = {
        operator.name: nodes[operator.name]
        for operator in graph.operators
        if _is_plain(graph, operator, nodes[operator.name])
    }
    return {"rows": row_rules(model, graph, plain, threads), "heads": head_rules(model, graph, plain, threads)}


def _has_wrong_shape(graph: Graph, operator: Operator, node: NodeProto) -> bool:
    """Return whether a pooling's inferred shape counts a window that starts after its input and padding (``ceil_mode``).

    onnxruntime leaves that window out. Then the shapes of all that follows are wrong, too.
    """
    if not any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute) or not operator.inputs:
        return False
    attributes = attributes_of(node)
    source, result = graph.tensors[operator.inputs[0]].shape[ROWS:], graph.tensors[operator.outputs[0]].shape[ROWS:]
    axes = len(source)
    pads = attributes.get("pads", [0] * 2 * axes)
    sizes = zip(source, result, spatial_strides(attributes, axes), pads[:axes], strict=True)
    return any((after - 1) * stride >= before + pad for before, after, stride, pad in sizes)


def _is_plain(graph: Graph, operator: Operator, node: NodeProto) -> bool:
    """Return whether an operator makes one float32 tensor of float32 operands, and has no subgraphs.

    Conditions (of Where) and amounts (of Pad) may have another type.
    """
    if len(operator.outputs) != 1 or not operator.inputs or operator.embedded_bytes or node.domain not in STANDARD_DOMAINS:
        return False
    untyped = {"Pad": node.input[1:], "Where": node.input[:1]}.get(node.op_type, ())
    operands = {name: graph.tensors[name] for name in operator.inputs} | {
        name: graph.weights[name] for name in operator.weights
    }
    floats = all(tensor.dtype == "float32" for name, tensor in operands.items() if name not in untyped)
    return floats and graph.tensors[operator.outputs[0]].dtype == "float32"
