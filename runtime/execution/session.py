"""onnxruntime sessions by the recipe that keeps mapped weights mapped (DESIGN.md section 5).

No prepacking (it copies every weight), no arena and no memory pattern (they hold blocks as large as the peak), graph
optimisation at most EXTENDED (ALL rewrites convolution weights into the layout of this processor). No spinning: a session's
threads would go on for a while when it is done, against the next session's and the one that reads (a bundle of VGG16 took
1.0 s so and takes 0.16 s, on two cores; the whole model takes up to 5 % longer).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.errors import BundleError, InputError, LibraryError

#: What onnxruntime says of an operator that it does not know.
_UNREGISTERED = "is not a registered"
#: What DLPack can describe; the others, of 8 bits and less, are rare.
_DLPACK_TYPES = frozenset(
    f"tensor({kind})"
    for kind in (
        "float",
        "double",
        "float16",
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)
#: A tensor between steps: an onnxruntime value, which is handed on without a copy, or a numpy array.
TensorValue = Any
#: The type of a value's elements: numpy's, or for onnxruntime's own values ONNX's, some of which numpy does not know.
Kind = np.dtype[Any] | int


class Session(Protocol):
    """What carries out one step."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``."""
        ...


class SessionOpener(Protocol):
    """The seam between the executor and onnxruntime."""

    def __call__(self, path: Path, threads: int, weights: Mapping[str, TensorValue], *, reuse: bool, plain: bool) -> Session:
        """Open the partition at ``path``; ``weights`` lie in memory already; the rest as in `hyps.runtime.bundle.manifest.Step`."""
        ...


def session_options(threads: int, custom_ops: Path | None = None) -> ort.SessionOptions:
    """The options of every session of a bundle, and of the whole model when the two are compared bit for bit.

    ``custom_ops`` is a library with operators of the user's own. Raises `LibraryError` where it cannot be loaded.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    if custom_ops:
        try:
            options.register_custom_ops_library(str(custom_ops))
        except Exception as error:  # onnxruntime's exception classes have no common public base
            raise LibraryError(f"--custom-ops {custom_ops} cannot be loaded: {_reason(error)}") from None
    return options


class OrtSession:
    """One partition in onnxruntime; dropping it releases its weights and workspace."""

    def __init__(
        self,
        path: Path,
        threads: int,
        weights: Mapping[str, TensorValue],
        custom_ops: Path | None,
        *,
        reuse: bool,
        plain: bool,
    ) -> None:
        options = session_options(threads, custom_ops)
        options.enable_mem_reuse = reuse
        if plain:  # half of the time that opening takes
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, value in weights.items():
            options.add_initializer(name, value)
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            mend = "; name the library of its operators with --custom-ops" if _UNREGISTERED in str(error) else ""
            raise BundleError(f"onnxruntime cannot open {path}: {_reason(error)}{mend}") from None
        self._path = path
        self._weights = weights  # onnxruntime refers to their memory

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs``; values stay onnxruntime's own, without a copy.

        Raises `InputError` for values that an operator refuses, such as an index beyond a table's end.
        """
        feeds = {name: to_ort(value) for name, value in inputs.items()}
        try:
            results = self._session.run_with_ort_values(list(outputs), feeds)
        except Exception as error:  # as above
            raise InputError(f"onnxruntime cannot run {self._path} on this input: {_reason(error)}") from None
        return dict(zip(outputs, map(_by_itself, results), strict=True))


def _by_itself(value: TensorValue) -> TensorValue:
    """The same memory as a value that can be dropped alone.

    What one run returns are references into one vector: the bytes of all of them stay until the last is dropped (1.31).
    An onnxruntime that is too old for ``from_dlpack`` keeps them so.
    """
    shareable = value.data_type() in _DLPACK_TYPES and hasattr(ort.OrtValue, "from_dlpack")
    return ort.OrtValue.from_dlpack(value) if shareable else value


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def open_session(
    path: Path,
    threads: int,
    weights: Mapping[str, TensorValue] = MappingProxyType({}),
    *,
    custom_ops: Path | None = None,
    reuse: bool = True,
    plain: bool = False,
) -> Session:
    """Open the model at ``path`` (the executor's default `SessionOpener`); onnxruntime maps weights that are not given."""
    return OrtSession(path, threads, weights, custom_ops, reuse=reuse, plain=plain)


def to_ort(value: TensorValue) -> ort.OrtValue:
    """An onnxruntime value; that of a numpy array lies in the array's memory."""
    return ort.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value


def memory_of(value: TensorValue) -> memoryview:
    """The bytes of a value that is kept elsewhere, whatever its type; without a copy where they lie in one piece."""
    if isinstance(value, np.ndarray):
        array = value if value.flags.c_contiguous else np.ascontiguousarray(value)
        return array.reshape(-1).view(np.uint8).data
    return memoryview((ctypes.c_ubyte * value.tensor_size_in_bytes()).from_address(value.data_ptr())).cast("B")


def kind_of(value: TensorValue) -> Kind:
    """What `empty` makes a value of the same type from."""
    return value.dtype if isinstance(value, np.ndarray) else int(value.element_type())


def shape_of(value: TensorValue) -> tuple[int, ...]:
    """The shape of a value."""
    return tuple(value.shape if isinstance(value, np.ndarray) else value.shape())


def empty(shape: Sequence[int], kind: Kind) -> TensorValue:
    """A value whose bytes are still to be written."""
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind) if isinstance(kind, int) else np.empty(shape, kind)


def to_numpy(value: TensorValue) -> NDArray[Any]:
    """A numpy array of a value that a session returned."""
    array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
    return array
