"""Convert between a tensor's bytes, as devices send them, and what an executor takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.execution.session import empty, memory_of, numpy_knows
from hyps.runtime.execution.tensor import TensorValue


def to_value(data: bytearray | bytes | NDArray[Any], record: TensorRecord) -> TensorValue:
    """Return the tensor of these bytes.

    It is a numpy array over them if numpy knows the type, else an onnxruntime value with a copy of them.
    """
    if numpy_knows(record.dtype):
        return np.frombuffer(data, record.dtype).reshape(record.shape)
    known = PACKED_TYPES.get(record.dtype) or STORAGE_TYPES[record.dtype]
    value = empty(record.shape, known.onnx)
    memory_of(value)[:] = data if isinstance(data, bytes | bytearray) else memory_of(data)
    return value
