"""Operators that compute the same as another: onnxruntime computes both once, and so joins them to others than it would.

CommonSubexpressionElimination comes before its fusions. What has one reader is fused with it, what has two is not: where a
cut or a split keeps twins apart, the numbers of their readers are others than in the whole model.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from onnx import NodeProto

from hyps.passes.graph import Graph
from hyps.passes.weights import Model

#: The first change no number, and tiles make them; of the last each reader gets its own again (EnsureUniqueDQForNodeUnit).
_APART = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze", "DequantizeLinear"})


def common_subexpression(model: Model, graph: Graph) -> tuple[str, str] | None:
    """The names of two operators that compute the same floats from computed values, or None."""
    known = {tensor.name for tensor in model.proto.graph.initializer}
    first: dict[Hashable, NodeProto] = {}
    same: dict[str, str] = {}
    for node in model.proto.graph.node:
        key = _key(node, same)
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)  # folded into a constant before all fusions
        twin = first.setdefault(key, node)
        if twin is node:
            continue
        same |= dict(zip(node.output, twin.output, strict=True))
        made = (graph.tensors[name] for name in node.output if name in graph.tensors)
        floats = any(tensor.dtype.startswith(("float", "bfloat")) for tensor in made)
        if floats and node.op_type not in _APART and known.isdisjoint(node.output):
            return twin.name, node.name
    return None


def _key(node: NodeProto, same: Mapping[str, str]) -> Hashable:
    """What two nodes have in common that compute the same."""
    attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    return node.domain, node.op_type, len(node.output), tuple(same.get(name, name) for name in node.input), tuple(attributes)
