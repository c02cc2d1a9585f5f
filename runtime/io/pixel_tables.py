"""Compute what each of the 256 values of a pixel becomes, by the arithmetic that numpy does in float32."""

from __future__ import annotations

import math
import struct
from ctypes import c_float

from hyps.runtime.bundle.records.preprocessing import Preprocess

_LETTERS = {"float32": "f", "float16": "e"}
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def pixel_tables(recipe: Preprocess, channels: int) -> tuple[tuple[bytes, ...], ...]:
    """Return, for each channel and each byte of a value, the table that `bytes.translate` takes.

    A value is (pixel x scale - mean) / std in float32, each operation rounded. Python's floats have more than twice the
    digits, so that rounding their result once more changes nothing. Integers are rounded, halves to even, and clipped.
    """
    mean, std = (each if len(each) == channels else each * channels for each in (recipe.mean, recipe.std))
    return tuple(_table(recipe, mean[channel], std[channel]) for channel in range(channels))


def _table(recipe: Preprocess, mean: float, std: float) -> tuple[bytes, ...]:
    values = (_value(pixel, _single(recipe.scale), _single(mean), _single(std)) for pixel in range(256))
    return tuple(map(bytes, zip(*(_stored(value, recipe.dtype) for value in values), strict=True)))


def _value(pixel: int, scale: float, mean: float, std: float) -> float:
    difference = _single(_single(pixel * scale) - mean)
    return _single(difference / std if std else difference * math.copysign(math.inf, std))


def _single(value: float) -> float:
    """Return a number rounded to float32; infinite where it is too large."""
    return c_float(value).value


def _stored(value: float, dtype: str) -> bytes:
    """Return the bytes of a value of the tensor's type."""
    if dtype in _LIMITS:
        lowest, highest = _LIMITS[dtype]
        return bytes((0 if math.isnan(value) else round(min(max(value, lowest), highest)) % 256,))
    try:
        return struct.pack(f"={_LETTERS[dtype]}", value)
    except OverflowError:  # above the largest float16
        return struct.pack(f"={_LETTERS[dtype]}", math.copysign(math.inf, value))
