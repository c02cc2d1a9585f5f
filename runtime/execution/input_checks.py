"""Check that tensors are what a model takes, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.element_types import STRING_TYPE
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.errors import InputError
from hyps.runtime.execution.tensor import TensorValue, dtype_name, dtype_of, shape_of

if TYPE_CHECKING:
    import numpy as np


def check_inputs(manifest: Manifest, inputs: Mapping[str, TensorValue]) -> None:
    """Raise `InputError` unless ``inputs`` are exactly the model's, with its dtypes and shapes."""
    for name in inputs:
        if name not in manifest.inputs:
            raise InputError(f"the model has no input {name!r}", f"it takes {_expected(manifest)}")
    for name in manifest.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r} is missing", f"the model takes {_expected(manifest)}")
        check_tensor(name, manifest.tensors[name], dtype_of(inputs[name]), shape_of(inputs[name]))


def _expected(manifest: Manifest) -> str:
    return ", ".join(f"{name} {describe(manifest.tensors[name])}" for name in manifest.inputs)


def check_tensor(name: str, record: TensorRecord, dtype: np.dtype[Any] | str, shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless ``dtype`` and ``shape`` are the record's, and strings no longer than was planned for."""
    kind = dtype if isinstance(dtype, str) else dtype_name(dtype)
    if kind == record.dtype and tuple(shape) == record.shape:
        if not isinstance(dtype, str) and dtype.kind == "U" and dtype.itemsize * math.prod(shape) > record.nbytes:
            raise InputError(
                f"input {name!r} has a string of {dtype.itemsize // 4:,} characters",
                f"strings of up to {record.nbytes // 4 // math.prod(shape):,} are planned for: give a shorter text",
            )
        return
    given = TensorRecord(dtype=kind, shape=tuple(shape))
    problem = f"input {name!r} is {describe(given)}; the bundle was compiled for {describe(record)}"
    if kind != record.dtype:
        text = ", with numpy.array(strings, dtype=str)" if record.dtype == STRING_TYPE else ""
        raise InputError(problem, f"convert it to {record.dtype}{text}")
    if len(shape) != len(record.shape) or not all(shape):
        raise InputError(problem, "give it that shape")
    import shlex  # only a wrong input needs it

    pad = all(size <= largest for size, largest in zip(shape, record.shape, strict=True))
    option = shlex.quote(f"{name}:{','.join(map(str, shape))}")
    raise InputError(
        problem,
        f"{'pad it to that shape' if pad else 'give it that shape'}, or compile another bundle with --input-shape {option}, "
        "if the model leaves that dimension open",
    )


def describe(record: TensorRecord) -> str:
    """Return a tensor's type for a message: ``float32[1, 3, 224, 224]``."""
    return f"{record.dtype}[{', '.join(map(str, record.shape))}]"
