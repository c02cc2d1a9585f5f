"""Fix the shapes of a model's inputs: as the user says, or with a batch of one.

A plan depends on every size (how many bytes a tensor takes, which operator fits), so a bundle has fixed shapes. Exporters
leave the first dimension of images open. A device with little memory runs one image at a time; a user who wants another
batch says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnx import ValueInfoProto

from hyps.passes.edit import GraphEditor
from hyps.passes.errors import UnsupportedModel
from hyps.passes.rewrite import Change, ModelForm, Rewrite, Rewritten
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class FixInputShapes(Rewrite):
    """Fix the named inputs to ``shapes``, dimensions in the input's own order."""

    form: ClassVar[ModelForm] = ModelForm.VALID
    keeps_shapes: ClassVar[bool] = False

    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these inputs.

        Raises `UnsupportedModel` for an unknown input, another rank, or a dimension that contradicts the model's own.
        """
        inputs = {value.name: value for value in model.proto.graph.input}
        for name, shape in self.shapes.items():
            if name not in inputs:
                known = ", ".join(map(repr, inputs))
                raise UnsupportedModel(f"--input-shape names {name!r}; the model's inputs are {known}")
            _check_shape(inputs[name], shape)
        return _fixed(model, self.shapes, dict.fromkeys(self.shapes, "--input-shape"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumeBatch(Rewrite):
    """Take a batch of one for each input of two or more dimensions whose first dimension alone is open."""

    form: ClassVar[ModelForm] = ModelForm.VALID
    keeps_shapes: ClassVar[bool] = False

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these batches; each change says how to fix another."""
        shapes, reasons = {}, {}
        for value in model.proto.graph.input:
            if _has_only_batch_open(value):
                batch, *others = value.type.tensor_type.shape.dim
                shapes[value.name] = (1, *(dimension.dim_value for dimension in others))
                reasons[value.name] = (
                    f"the model leaves its first dimension open ({batch.dim_param or '?'}); --input-shape "
                    f"{value.name}:N,... fixes another"
                )
        return _fixed(model, shapes, reasons)


def _check_shape(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Raise `UnsupportedModel` unless ``shape`` agrees with what the model says of an input."""
    if not value.type.tensor_type.HasField("shape"):
        return
    dimensions = value.type.tensor_type.shape.dim
    if len(dimensions) != len(shape):
        raise UnsupportedModel(
            f"--input-shape gives {value.name!r} {len(shape)} dimensions; the model says {len(dimensions)}"
        )
    for position, (dimension, size) in enumerate(zip(dimensions, shape, strict=True)):
        if dimension.HasField("dim_value") and dimension.dim_value not in (0, -1, size):
            raise UnsupportedModel(
                f"--input-shape gives {value.name!r} {size} in dimension {position}; the model fixes it at "
                f"{dimension.dim_value}"
            )


def _has_only_batch_open(value: ValueInfoProto) -> bool:
    if not value.type.tensor_type.HasField("shape"):
        return False
    is_open = [not dim.HasField("dim_value") or dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim]
    return len(is_open) > 1 and is_open[0] and not any(is_open[1:])


def _fixed(model: Model, shapes: Mapping[str, tuple[int, ...]], reasons: Mapping[str, str]) -> Rewritten:
    """Return the model with inputs of these shapes, and a change for each."""
    if not shapes:
        return Rewritten(model=model)
    editor = GraphEditor(model)
    for index, value in enumerate(editor.inputs):
        if value.name in shapes:
            fixed = editor.inputs[index] = ValueInfoProto()
            fixed.CopyFrom(value)
            dimensions = fixed.type.tensor_type.shape.dim
            for position, size in enumerate(shapes[value.name]):
                (dimensions[position] if position < len(dimensions) else dimensions.add()).dim_value = size
            fixed.type.tensor_type.shape.SetInParent()  # that of a scalar has no dimensions
    changes = (
        Change(operator=f"input {name}", what=f"taken as [{','.join(map(str, shape))}]", why=reasons[name])
        for name, shape in shapes.items()
    )
    return Rewritten(model=editor.finish(), changes=tuple(changes))
