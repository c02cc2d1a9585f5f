"""Propose shapes for the inputs that a model leaves open, and refuse the model with an example that works for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import TensorProto, ValueInfoProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.shape_inference.dimensions import Dimension, described, input_dimensions, size_of, symbol_sizes
from hyps.passes.shape_inference.operator_sizes import operator_sizes
from hyps.passes.weights import Model

Kind = Literal["batch", "channels", "pixels", "frames", "samples", "past", "values"]

#: The kind of a dimension by the words in its symbol, and by the words in its input's name.
_SYMBOL_WORDS: Sequence[tuple[Kind, str]] = (
    ("batch", r"batch|bs|bsz|b|n"),
    ("past", r"past|cache|history"),
    ("pixels", r"height|width|h|w|rows|cols|columns|size|side"),
    ("channels", r"channels?|c|colou?rs?"),
    ("samples", r"samples|audio|wave|waveform"),
    ("frames", r"frames"),
    ("values", r"seq|sequence|tokens?|len|length|text|words?|time|t|l|s|nodes?|edges?|points?"),
)
_SOUND = re.compile(r"audio|wave|speech|signal|sound|pcm|input_values")
_STATE = re.compile(r"state|hidden|h0|c0|memory")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSizes:
    """The sizes of one proposal, for dimensions whose kind has more than one usual size."""

    pixels: int
    values: int
    samples: int
    frames: int
    past: int

    def of(self, kind: Kind) -> int:
        """Return the size of a dimension of this kind."""
        return {"batch": 1, "channels": 3}[kind] if kind in ("batch", "channels") else int(getattr(self, kind))


#: The usual sizes first, then others that models insist on, then ones.
_PROPOSED = tuple(
    ExampleSizes(pixels=pixels, values=values, samples=samples, frames=frames, past=past)
    for pixels, values, samples, frames, past in (
        (224, 128, 16_000, 16, 16),
        (256, 64, 32_000, 8, 8),
        (640, 77, 8_000, 32, 32),
        (512, 32, 48_000, 4, 1),
        (299, 16, 512, 100, 16),
        (32, 8, 1_536, 2, 8),
        (28, 512, 80_000, 1, 1),
        (1, 1, 1, 1, 1),
    )
)
#: Trying a shape takes long for larger models; they are told the usual sizes.
_MOST_OPERATORS_TRIED = 20_000


def refuse_open_inputs(model: Model, works: Callable[[Mapping[str, tuple[int, ...]]], bool] | None = None) -> None:
    """Raise `UnsupportedModel` where inputs have open dimensions: it names them all, and options that fix them.

    ``works`` says whether a model with such shapes can be planned: the first proposal of which that is true is the example.
    """
    inputs = {value.name: value for value in model.proto.graph.input if _is_tensor(value)}
    unfixed = [name for name, value in inputs.items() if _is_open(input_dimensions(value))]
    if not unfixed:
        return
    insisted = operator_sizes(model)
    first, *others = (_options(inputs, unfixed, insisted, sizes) for sizes in _PROPOSED)
    example = first
    if works and len(model.proto.graph.node) <= _MOST_OPERATORS_TRIED:
        example = next((each for each in (first, *others) if works(each)), first)
    options = " ".join(f"--input-shape {shlex.quote(f'{name}:{_written(shape)}')}" for name, shape in example.items())
    names = [f"input {name!r}" for name in unfixed]
    shapes = [described(input_dimensions(inputs[name])) for name in unfixed]
    if len(unfixed) == 1:
        raise UnsupportedModel(f"{names[0]} has a dynamic shape {shapes[0]}; fix it, for example with {options}")
    listed = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    raise UnsupportedModel(
        f"{len(unfixed)} inputs have dynamic shapes: {listed}; fix them (a symbol has one size in all of them), for example "
        f"with {options}"
    )


def _options(
    inputs: Mapping[str, ValueInfoProto],
    unfixed: Sequence[str],
    insisted: Mapping[tuple[str, int], int],
    sizes: ExampleSizes,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of as few inputs as fix all of them, as far as their symbols reach."""
    shapes = _shapes(inputs, unfixed, insisted, sizes)
    chosen: dict[str, tuple[int, ...]] = {}
    known: dict[str, int] = {}
    for name in unfixed:
        dimensions = input_dimensions(inputs[name])
        if dimensions is None or any(size_of(each, known) is None for each in dimensions):
            chosen[name] = shapes[name]
            known = {symbol: each.size for symbol, each in symbol_sizes(inputs, chosen).items()}
    return chosen


def _shapes(
    inputs: Mapping[str, ValueInfoProto],
    unfixed: Sequence[str],
    insisted: Mapping[tuple[str, int], int],
    sizes: ExampleSizes,
) -> dict[str, tuple[int, ...]]:
    """Return a shape for each of the inputs in which a symbol has one size, and a formula the size of its symbols."""
    by_input = {name: input_dimensions(inputs[name]) for name in unfixed}
    known: dict[str, int] = {}
    for (name, position), size in insisted.items():
        dimensions = by_input.get(name)
        if dimensions and -len(dimensions) <= position < len(dimensions):
            dimension = dimensions[position]
            if isinstance(dimension, str) and dimension:
                known.setdefault(dimension, size)
            elif dimension == "":
                dimensions[position] = size
    for is_formula in (False, True):
        for name, dimensions in by_input.items():
            for position, dimension in enumerate(dimensions or ()):
                if isinstance(dimension, str) and dimension and dimension.isidentifier() != is_formula:
                    size_known = size_of(dimension, known)
                    kind = _kind(inputs[name], dimensions or (), position)
                    known[dimension] = sizes.of(kind) if size_known is None else size_known
    return {name: tuple(_filled(inputs[name], dimensions, known, sizes)) for name, dimensions in by_input.items()}


def _filled(
    value: ValueInfoProto, dimensions: Sequence[Dimension] | None, known: Mapping[str, int], sizes: ExampleSizes
) -> Iterator[int]:
    if dimensions is None:
        yield from (1, 3, sizes.pixels, sizes.pixels) if _is_float(value) else (1, sizes.values)
        return
    for position, dimension in enumerate(dimensions):
        size = size_of(dimension, known)
        yield sizes.of(_kind(value, dimensions, position)) if size is None else size


def _kind(value: ValueInfoProto, dimensions: Sequence[Dimension], position: int) -> Kind:
    """Return the kind of an open dimension: by its symbol, or else by its place and the input's type and name."""
    symbol = str(dimensions[position])
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", symbol).lower()))
    by_symbol = (kind for kind, pattern in _SYMBOL_WORDS if any(re.fullmatch(pattern, word) for word in words))
    kind = next(by_symbol, None)
    rank, is_sound = len(dimensions), _is_float(value) and _SOUND.search(value.name.lower()) is not None
    if kind in ("values", "frames") and rank == 5:
        return "frames"
    if kind in ("values", "frames"):
        return "samples" if is_sound and (rank < 3 or dimensions[1] == 1) else "values"
    if kind:
        return kind
    layers_first = rank == 3 and dimensions[0] != "" and _STATE.search(value.name.lower())  # [layers, batch, size]
    if rank > 1 and position == (1 if layers_first else 0):
        return "batch"
    if rank in (4, 5) and _is_float(value):
        channels = rank - 1 if dimensions[-1] in (1, 3) else 1
        if position == channels:
            return "channels"
        return "frames" if rank == 5 and position == (2 if channels == 1 else 1) else "pixels"
    return "samples" if is_sound and position == rank - 1 else "values"


def _written(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def _is_open(dimensions: Sequence[Dimension] | None) -> bool:
    return dimensions is None or any(isinstance(each, str) for each in dimensions)


def _is_tensor(value: ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") or value.type.WhichOneof("value") is None


def _is_float(value: ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _FLOATS
