"""Read the dimensions of a model's inputs: a size, a symbol that has one size wherever it stands, or a formula of symbols.

Exporters write formulas such as ``past_sequence_length + 1`` (optimum) and ``2*s0`` (torch).
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onnx import ValueInfoProto

from hyps.passes.errors import UnsupportedModel

#: Exporters write these for any dimension that they do not know; two of them may have different sizes.
_NAMELESS = frozenset({"", "?", "-1", "none", "unk", "unknown"})
_LONGEST_FORMULA = 200
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}

#: A dimension: its size, or its symbol or formula, which is "" where it has no name.
Dimension = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolSize:
    """The size that the shape given for ``source`` gives to a symbol."""

    size: int
    source: str


def input_dimensions(value: ValueInfoProto) -> list[Dimension] | None:
    """Return the dimensions of an input; None where not even their number is known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value >= 0 else _symbol(dimension.dim_param)
        for dimension in value.type.tensor_type.shape.dim
    ]


def symbol_sizes(inputs: Mapping[str, ValueInfoProto], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, SymbolSize]:
    """Return the sizes that the ``shapes`` of some inputs give to the model's symbols.

    Raises `UnsupportedModel` where a symbol gets two sizes.
    """
    found: dict[str, SymbolSize] = {}
    for name, shape in shapes.items():
        for dimension, size in zip(input_dimensions(inputs[name]) or (), shape, strict=False):
            if isinstance(dimension, int) or not dimension:
                continue
            first = found.setdefault(dimension, SymbolSize(size=size, source=name))
            if first.size != size:
                raise UnsupportedModel(
                    f"--input-shape gives {dimension!r} two sizes: {first.size} in {first.source!r}, {size} in {name!r}; "
                    "the model has one size for it: give the same"
                )
    sizes = {symbol: each.size for symbol, each in found.items()}
    for formula, given in found.items():
        computed = _formula_size(formula, sizes)
        if computed not in (None, given.size):
            raise UnsupportedModel(
                f"--input-shape gives {formula!r} two sizes: {given.size} in {given.source!r}, and {computed} by the sizes "
                "of its parts; the model has one size for it: give the same"
            )
    return found


def size_of(dimension: Dimension, sizes: Mapping[str, int]) -> int | None:
    """Return the size of a dimension whose symbols have these ``sizes``; None where one is unknown."""
    if isinstance(dimension, int):
        return dimension
    size = sizes.get(dimension)
    return _formula_size(dimension, sizes) if size is None else size


def described(dimensions: Iterable[Dimension] | None) -> str:
    """Return dimensions for a message: ``[batch, 3, ?]``."""
    if dimensions is None:
        return "of unknown rank"
    return f"[{', '.join(str(dimension) if dimension != '' else '?' for dimension in dimensions)}]"


def _symbol(text: str) -> str:
    return "" if text.strip().lower() in _NAMELESS else text


def _formula_size(text: str, sizes: Mapping[str, int]) -> int | None:
    """Return the size of a sum, difference, product or quotient; None for another text, and for one symbol alone."""
    if len(text) > _LONGEST_FORMULA:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        size = _value(tree, sizes) if isinstance(tree, ast.BinOp) else None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return size if size is not None and size >= 0 else None


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> int | None:
    match tree:
        case ast.Name(id=name):
            return sizes.get(name)
        case ast.Constant(value=int(number)):
            return number
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            values = _value(left, sizes), _value(right, sizes)
            return None if values[0] is None or values[1] is None else _OPERATIONS[type(operation)](values[0], values[1])
    return None
