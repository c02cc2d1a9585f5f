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
from hyps.passes.shape_inference.dimensions import Dimension, SymbolSize, input_dimensions, size_of, symbol_sizes
from hyps.passes.weights import Model
from hyps.runtime.suggestions import did_you_mean

#: The reason of a change that the user asked for.
REQUESTED = "--input-shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class FixInputShapes(Rewrite):
    """Fix the named inputs to ``shapes``, dimensions in the input's own order, and others by the symbols that they share."""

    form: ClassVar[ModelForm] = ModelForm.VALID
    keeps_shapes: ClassVar[bool] = False

    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these inputs.

        Raises `UnsupportedModel` for an unknown input, another rank, a dimension that contradicts the model's own, and two
        sizes for one symbol.
        """
        inputs = {value.name: value for value in model.proto.graph.input}
        for name, shape in self.shapes.items():
            if name not in inputs:
                known = ", ".join(map(repr, inputs))
                raise UnsupportedModel(
                    f"--input-shape names {name!r}; {did_you_mean(name, inputs)}the model's inputs are {known}"
                )
            _check_shape(inputs[name], shape)
        symbols = symbol_sizes(inputs, self.shapes)
        dimensions: dict[str, list[Dimension]] = {name: [*shape] for name, shape in self.shapes.items()}
        reasons = dict.fromkeys(self.shapes, REQUESTED)
        for name, value in inputs.items():
            given = input_dimensions(value)
            if name not in dimensions and given and (shared := _with_sizes(given, symbols)) != given:
                dimensions[name] = shared
                reasons[name] = _sources(given, symbols)
        return _fixed(model, dimensions, reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumeBatch(Rewrite):
    """Take a batch of ``size`` for each input of two or more dimensions whose first dimension alone is open."""

    form: ClassVar[ModelForm] = ModelForm.VALID
    keeps_shapes: ClassVar[bool] = False

    size: int = 1

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with these batches; each change says how to fix another."""
        shapes: dict[str, list[Dimension]] = {}
        reasons = {}
        for value in model.proto.graph.input:
            batch, *others = input_dimensions(value) or (0,)
            if others and isinstance(batch, str) and all(isinstance(each, int) for each in others):
                shapes[value.name] = [self.size, *others]
                reasons[value.name] = (
                    f"the model leaves its first dimension open ({batch or '?'}); --input-shape {value.name}:N,... fixes "
                    "another"
                )
        return _fixed(model, shapes, reasons)


def given_batch(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the batch that the user's ``shapes`` give to inputs with an open first dimension, if it is one; else 1."""
    first = {value.name: (input_dimensions(value) or [""])[0] for value in model.proto.graph.input}
    batches = {shape[0] for name, shape in shapes.items() if len(shape) > 1 and isinstance(first.get(name), str)}
    return batches.pop() if len(batches) == 1 else 1


def _with_sizes(dimensions: list[Dimension], symbols: Mapping[str, SymbolSize]) -> list[Dimension]:
    """Return the dimensions, those whose size the symbols give as numbers."""
    sizes = {symbol: each.size for symbol, each in symbols.items()}
    found = [size_of(dimension, sizes) for dimension in dimensions]
    return [each if size is None else size for each, size in zip(dimensions, found, strict=True)]


def _sources(dimensions: list[Dimension], symbols: Mapping[str, SymbolSize]) -> str:
    """Say which shapes that the user gave fix these dimensions."""
    named = dict.fromkeys(symbols[each].source for each in dimensions if isinstance(each, str) and each in symbols)
    return f"it shares dimensions with {' and '.join(map(repr, named or dict.fromkeys(s.source for s in symbols.values())))}"


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


def _fixed(model: Model, shapes: Mapping[str, list[Dimension]], reasons: Mapping[str, str]) -> Rewritten:
    """Return the model with inputs of these dimensions, and a change for each."""
    if not shapes:
        return Rewritten(model=model)
    editor = GraphEditor(model)
    for index, value in enumerate(editor.inputs):
        if value.name in shapes:
            fixed = editor.inputs[index] = ValueInfoProto()
            fixed.CopyFrom(value)
            dimensions = fixed.type.tensor_type.shape.dim
            for position, size in enumerate(shapes[value.name]):
                dimension = dimensions[position] if position < len(dimensions) else dimensions.add()
                if isinstance(size, int):
                    dimension.dim_value = size
            fixed.type.tensor_type.shape.SetInParent()  # that of a scalar has no dimensions
    changes = (
        Change(operator=f"input {name}", what=f"taken as [{','.join(map(str, shape))}]", why=reasons[name])
        for name, shape in shapes.items()
    )
    return Rewritten(model=editor.finish(), changes=tuple(changes))
