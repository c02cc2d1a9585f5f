"""Convert the bytes of a received tensor to what an executor takes, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import STORAGE_TYPES, TensorRecord
from hyps.runtime.execution.session import TensorValue


def to_value(data: bytearray | bytes | NDArray[Any], record: TensorRecord) -> TensorValue:
    """Return the tensor over these bytes: a numpy array if numpy knows the type, else an onnxruntime value."""
    known = STORAGE_TYPES[record.dtype]
    array = np.frombuffer(data, known.storage).reshape(record.shape)
    if known.storage == record.dtype:
        return array
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, known.onnx)
