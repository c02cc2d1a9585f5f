"""The types of a tensor's elements: their bytes, and their numbers in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class StorageType(NamedTuple):
    """The storage of a weight's elements (numpy dtype name, bytes each), and their meaning (ONNX's ``DataType``)."""

    storage: str
    item_bytes: int
    onnx: int


STORAGE_TYPES: Mapping[str, StorageType] = {
    "float32": StorageType("float32", 4, 1),
    "uint8": StorageType("uint8", 1, 2),
    "int8": StorageType("int8", 1, 3),
    "uint16": StorageType("uint16", 2, 4),
    "int16": StorageType("int16", 2, 5),
    "int32": StorageType("int32", 4, 6),
    "int64": StorageType("int64", 8, 7),
    "bool": StorageType("bool", 1, 9),
    "float16": StorageType("float16", 2, 10),
    "float64": StorageType("float64", 8, 11),
    "uint32": StorageType("uint32", 4, 12),
    "uint64": StorageType("uint64", 8, 13),
    "bfloat16": StorageType("uint16", 2, 16),
    "float8_e4m3fn": StorageType("uint8", 1, 17),
    "float8_e4m3fnuz": StorageType("uint8", 1, 18),
    "float8_e5m2": StorageType("uint8", 1, 19),
    "float8_e5m2fnuz": StorageType("uint8", 1, 20),
}


class PackedType(NamedTuple):
    """A type whose elements share bytes: the bits of each, and its number in ONNX."""

    bits: int
    onnx: int


#: The types of tensors between steps that no weights file holds: onnxruntime itself reads such weights.
PACKED_TYPES: Mapping[str, PackedType] = {
    "uint4": PackedType(4, 21),
    "int4": PackedType(4, 22),
    "float4_e2m1fn": PackedType(4, 23),
    "uint2": PackedType(2, 25),
    "int2": PackedType(2, 26),
}

#: The type of strings in a tensor's record; numpy names them by their lengths.
STRING_TYPE = "str"


def string_bytes(count: int) -> int:
    """Return the most bytes that a tensor of ``count`` strings may take as a numpy array, 4 bytes a character.

    A string may have any length, so a plan needs a bound, which `hyps.runtime.execution.executor` checks: 65,536 characters
    in a tensor, and 256 more for each string.
    """
    return 4 * (65_536 + 256 * count)
