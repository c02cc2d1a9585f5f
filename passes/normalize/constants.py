"""Fold an operator that only gives a constant another shape: its result becomes a constant.

Exporters that kept Caffe's scale layers write ``Unsqueeze(weight)`` before a Mul or an Add. onnxruntime folds the Unsqueeze
while it loads, and then the Mul and the Add into the convolution before them. No cut may come between, so the planner has to
see weights there. The bytes stay where they are: a reference keeps its place in the file and takes the inferred shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from hyps.passes.edit import GraphEditor
from hyps.passes.onnx_ops import RESHAPES, STANDARD_DOMAINS
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldReshapes(Rewrite):
    """Replace every reshaping of a constant by a constant of that shape."""

    def __call__(self, model: Model) -> Rewritten:
        """Return the model without reshaped constants. A reshaped constant that is a model's output stays computed."""
        if not any(node.op_type in RESHAPES for node in model.proto.graph.node):
            return Rewritten(model=model)
        editor = GraphEditor(model)
        shapes = {
            value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
            for value in editor.value_info  # without the model's outputs
        }
        changes = []
        for node in editor.nodes:
            is_reshape = node.domain in STANDARD_DOMAINS and node.op_type in RESHAPES and node.output[0] in shapes
            if not is_reshape or any(name and name not in editor.constants for name in node.input):
                continue
            name, source = node.output[0], node.input[0]
            values = TensorProto()
            values.CopyFrom(editor.constants[source])
            values.name = name
            values.dims[:] = shapes[name]
            editor.remove(node.name)
            editor.constant(values, editor.weights.get(source))
            why = "it only gives a constant another shape"
            changes.append(Change(operator=node.name, what="folded into its constant", why=why))
        return Rewritten(model=editor.finish() if changes else model, changes=tuple(changes))
