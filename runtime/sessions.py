"""onnxruntime sessions by the recipe that keeps mapped weights mapped (DESIGN.md section 5).

No prepacking (it copies every weight), no arena and no memory pattern (they hold blocks as large as the peak), graph
optimisation at most EXTENDED (ALL rewrites convolution weights into the layout of this processor).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.errors import BundleError, InputError

#: A tensor between steps: an onnxruntime value, which is handed on without a copy, or a numpy array.
Value = Any


class Session(Protocol):
    """What carries out one step."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Compute the named ``outputs`` from named ``inputs``."""
        ...


class SessionOpener(Protocol):
    """The seam between the executor and onnxruntime."""

    def __call__(self, path: Path, threads: int, weights: Mapping[str, Value], *, tiled: bool) -> Session:
        """Open the partition at ``path``; ``weights`` lie in memory already. ``tiled``: it computes in tiles."""
        ...


def session_options(threads: int) -> ort.SessionOptions:
    """The options of every session of a bundle, and of the whole model when the two are compared bit for bit."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    return options


class OrtSession:
    """One partition in onnxruntime; dropping it releases its weights and workspace."""

    def __init__(self, path: Path, threads: int, weights: Mapping[str, Value], *, tiled: bool = False) -> None:
        options = session_options(threads)
        options.enable_mem_reuse = not tiled  # it would hold a tile's buffers until the next tile of the same shape
        for name, value in weights.items():
            options.add_initializer(name, value)
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exception classes have no common public base
            raise BundleError(f"onnxruntime cannot open {path}: {_reason(error)}") from None
        self._path = path
        self._weights = weights  # onnxruntime refers to their memory

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Compute the named ``outputs``; values stay onnxruntime's own, without a copy.

        Raises `InputError` for values that an operator refuses, such as an index beyond a table's end.
        """
        feeds = {name: to_ort(value) for name, value in inputs.items()}
        try:
            results = self._session.run_with_ort_values(list(outputs), feeds)
        except Exception as error:  # as above
            raise InputError(f"onnxruntime cannot run {self._path} on this input: {_reason(error)}") from None
        return dict(zip(outputs, results, strict=True))


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def open_session(
    path: Path, threads: int, weights: Mapping[str, Value] = MappingProxyType({}), *, tiled: bool = False
) -> Session:
    """Open the model at ``path`` (the executor's default `SessionOpener`); onnxruntime maps weights that are not given."""
    return OrtSession(path, threads, weights, tiled=tiled)


def to_ort(value: Value) -> ort.OrtValue:
    """An onnxruntime value; a numpy array is copied into one."""
    return ort.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value


def to_numpy(value: Value) -> NDArray[Any]:
    """A numpy array of a value that a session returned."""
    array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
    return array
