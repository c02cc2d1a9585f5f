"""A constant that is only given another shape is a constant: take the reshaping away.

Exporters that kept Caffe's scale layers write ``Unsqueeze(weight)`` before a Mul or an Add. onnxruntime folds that while it
loads and then the Mul and the Add into the convolution before them; a cut must not come between, so the planner has to see
weights there. The bytes stay where they are: a reference keeps its place in the file and takes the inferred shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from hyps.passes.graph import reads
from hyps.passes.onnx_ops import RESHAPES, STANDARD_DOMAINS
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldReshapes:
    """Replace every reshaping of a constant by a constant of that shape; the model's shapes must be known."""

    def __call__(self, model: Model) -> Rewritten:
        """Fold; see the module."""
        constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
        shapes = {
            value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
            for value in model.proto.graph.value_info  # without the outputs: those stay computed
        }
        weights = dict(model.weights)
        folded: set[str] = set()
        changes = []
        for node in model.proto.graph.node:
            reshapes = node.domain in STANDARD_DOMAINS and node.op_type in RESHAPES and node.output[0] in shapes
            if not reshapes or any(name and name not in constants for name in node.input):
                continue
            name, source = node.output[0], node.input[0]
            tensor = TensorProto()
            tensor.CopyFrom(constants[source])
            tensor.name = name
            tensor.dims[:] = shapes[name]
            constants[name] = tensor
            if source in weights:
                weights[name] = weights[source]
            folded.add(node.name)
            why = "it only gives a constant another shape"
            changes.append(Change(operator=node.name, what="folded into its constant", why=why))
        if not changes:
            return Rewritten(model=model)
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        kept = [node for node in model.proto.graph.node if node.name not in folded]
        used = {name for node in kept for name in reads(node)}
        del proto.graph.node[:], proto.graph.initializer[:]
        proto.graph.node.extend(kept)
        proto.graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
        return Rewritten(
            model=Model(proto=proto, weights={name: weight for name, weight in weights.items() if name in used}),
            changes=tuple(changes),
        )
