"""Find operators that compute the same result as another operator.

onnxruntime computes such operators once (CommonSubexpressionElimination), before its fusions. It fuses an operator into the
reader of its result only if there is a single reader. A cut or a split keeps equal operators apart, so each may have a
single reader and be fused. The readers' numbers may then differ from those in the whole model.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from onnx import NodeProto

from hyps.passes.graph import Graph
from hyps.passes.onnx_ops import RESHAPES
from hyps.passes.weights import Model

#: Kinds that change no number when they are computed twice: they only move elements (tiles make Slices), or each reader gets
#: a DequantizeLinear of its own again (EnsureUniqueDQForNodeUnit).
_HARMLESS = RESHAPES | {"Slice", "DequantizeLinear"}


def common_subexpression(model: Model, graph: Graph) -> tuple[str, str] | None:
    """Return the names of two operators that compute the same floats from computed values; None if there are none."""
    constants = {tensor.name for tensor in model.proto.graph.initializer}
    first_nodes: dict[Hashable, NodeProto] = {}
    first_names: dict[str, str] = {}
    for node in model.proto.graph.node:
        key = _key(node, first_names)
        if constants.issuperset(filter(None, node.input)):
            constants.update(node.output)  # folded before all fusions
        first = first_nodes.setdefault(key, node)
        if first is node:
            continue
        first_names |= dict(zip(node.output, first.output, strict=True))
        results = (graph.tensors[name] for name in node.output if name in graph.tensors)
        floats = any(tensor.dtype.startswith(("float", "bfloat")) for tensor in results)
        if floats and node.op_type not in _HARMLESS and constants.isdisjoint(node.output):
            return first.name, node.name
    return None


def _key(node: NodeProto, first_names: Mapping[str, str]) -> Hashable:
    """Return a key that is equal for nodes with the same result; ``first_names`` maps equal tensors to one name."""
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    inputs = tuple(first_names.get(name, name) for name in node.input)
    return node.domain, node.op_type, len(node.output), inputs, tuple(attributes)
