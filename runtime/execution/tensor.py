"""Hold a tensor without numpy, and read the type and the shape of any value that goes from step to step.

A process that runs pictures through onnxruntime's C interface never imports numpy (`hyps.runtime.execution.c_api`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES, STRING_TYPE

if TYPE_CHECKING:
    import numpy as np

#: A tensor between steps: a `RawTensor`, a value of onnxruntime's Python module, or a numpy array. No step copies it.
TensorValue = Any
#: The names of element types by their numbers in ONNX.
TYPE_NAMES = {kind.onnx: name for types in (STORAGE_TYPES, PACKED_TYPES) for name, kind in types.items()}
#: The types of numbers that are printed, by the letters that `struct` has for them.
NUMBER_FORMATS = {
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "bool": "?",
    **{f"int{8 << index}": letter for index, letter in enumerate("bhiq")},
    **{f"uint{8 << index}": letter for index, letter in enumerate("BHIQ")},
}


@dataclass(frozen=True, slots=True, eq=False)
class RawTensor:
    """A tensor of numbers: its type as a `TensorRecord` names it, its shape, and its bytes in C order.

    ``owner`` keeps the memory, if that is not Python's.
    """

    dtype: str
    shape: tuple[int, ...]
    memory: memoryview
    owner: object = None

    @property
    def onnx_type(self) -> int:
        """The number of the elements' type in ONNX."""
        return (STORAGE_TYPES.get(self.dtype) or PACKED_TYPES[self.dtype]).onnx

    def tobytes(self) -> bytes:
        """Return a copy of the bytes."""
        return self.memory.tobytes()


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of an array's type as a `TensorRecord` has it: that of strings does not depend on their lengths."""
    return STRING_TYPE if dtype.kind == "U" else dtype.name


def dtype_of(value: TensorValue) -> str:
    """Return the type of a value's elements, as a `TensorRecord` names it."""
    if isinstance(value, RawTensor):
        return value.dtype
    if hasattr(value, "dtype"):
        return dtype_name(value.dtype)
    return str(TYPE_NAMES.get(value.element_type(), value.data_type()))


def shape_of(value: TensorValue) -> tuple[int, ...]:
    """Return the shape of a value."""
    shape = value.shape
    return tuple(shape() if callable(shape) else shape)


def numbers_of(value: TensorValue) -> Sequence[Any]:
    """Return the numbers of a `RawTensor` or an array, of a type of `NUMBER_FORMATS`, in C order."""
    letter = NUMBER_FORMATS[dtype_of(value)]
    content = value.tobytes()
    if letter == "e":  # memoryview cannot read it
        return struct.unpack(f"={len(content) // 2}e", content)
    numbers: Sequence[Any] = memoryview(content).cast(letter)  # type: ignore[call-overload]
    return numbers
