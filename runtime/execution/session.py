"""Open sessions through onnxruntime's Python module, whose values and numpy's arrays go from step to step."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.bundle.records.element_types import PACKED_TYPES, STORAGE_TYPES
from hyps.runtime.bundle.records.steps import ActivationsRecord
from hyps.runtime.errors import LibraryError
from hyps.runtime.execution.interface import (
    DISABLE_ALL,
    FATAL_SEVERITY,
    IDENTITY,
    OrtInterface,
    Session,
    arena_settings,
    first_line,
    refused_input,
    session_settings,
    unopened,
)
from hyps.runtime.execution.tensor import RawTensor, TensorValue

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.execution.direct_run import DirectRun

#: The types that onnxruntime takes and returns as values of its own; the others are strings, sequences and maps.
_NUMERIC_TENSOR = re.compile(r"tensor\((?!string)")
#: The types that DLPack can describe; the others, of 8 bits and less, are rare.
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
#: onnxruntime's own names of the types that numpy lacks.
_UNKNOWN_TO_NUMPY = frozenset(
    f"tensor({name})"
    for name in (
        "bfloat16",
        *(f"float8{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0")),
        "float4e2m1",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4)),
    )
)
#: The type of a value's elements: numpy's for an array; ONNX's for an onnxruntime value, as numpy does not know all types.
ElementType = np.dtype[Any] | int


def session_options(
    threads: int, custom_ops: Path | None = None, *, stock: bool = False, arena: bool = False
) -> ort.SessionOptions:
    """Return the options of a bundle's sessions, and of the whole model's where the two are compared bit for bit.

    They are the lean ones, or ``stock``: onnxruntime's defaults, but for its unbounded arena. With ``arena`` activations
    are in the process's arena (`hyps.runtime.execution.activation_arena`) instead. Arenas change no bit. ``custom_ops`` is
    a library with the user's own operators. Raises `LibraryError` where it cannot be loaded.
    """
    options = ort.SessionOptions()
    settings = session_settings(stock=stock, arena=arena)
    if settings.level is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel(settings.level)
    for key, value in settings.entries.items():
        options.add_session_config_entry(key, value)
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = settings.has_pattern
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_SEVERITY
    if custom_ops:
        try:
            options.register_custom_ops_library(str(custom_ops))
        except Exception as error:  # onnxruntime's exception classes have no common public base
            raise LibraryError(f"--custom-ops {custom_ops} cannot be loaded: {first_line(error)}") from None
    return options


def start_onnxruntime() -> None:
    """Open and drop a session of one operator."""
    identity_session()


def identity_session(*, arena: bool = False) -> ort.InferenceSession:
    """Return a session that computes ``y`` of ``x``, one float32; ``arena`` is that of `session_options`."""
    return ort.InferenceSession(IDENTITY, session_options(1, arena=arena), providers=["CPUExecutionProvider"])


def register_arena(record: ActivationsRecord) -> int:
    """Make an arena the one that sessions opened from now on share, and return its address.

    See `hyps.runtime.execution.activation_arena`. The first tensor is at the beginning.
    """
    information = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(information, ort.OrtArenaCfg(arena_settings(record)))
    (first,) = identity_session(arena=True).run_with_ort_values(["y"], {"x": to_ort(np.zeros(1, np.float32))})
    return value_place(first)[0]


def value_place(value: TensorValue) -> tuple[int, int]:
    """Return where in memory one of onnxruntime's own values begins and ends; 0 for others."""
    if isinstance(value, np.ndarray | RawTensor):
        return 0, 0
    start = value.data_ptr()
    return start, start + value.tensor_size_in_bytes()


class OrtSession:
    """A partition opened in onnxruntime; dropping it releases its weights and workspace."""

    def __init__(
        self,
        path: Path,
        threads: int,
        weights: Mapping[str, TensorValue],
        custom_ops: Path | None,
        *,
        reuse_memory: bool,
        optimize: bool,
        stock: bool,
        arena: bool,
    ) -> None:
        options = session_options(threads, custom_ops, stock=stock, arena=arena)
        settings = session_settings(reuse_memory=reuse_memory, optimize=optimize, stock=stock, arena=arena)
        options.enable_mem_reuse = settings.reuses_memory
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel(DISABLE_ALL)
        given = {name: to_ort(value) for name, value in weights.items()}
        for name, value in given.items():
            options.add_initializer(name, value)
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            raise unopened(path, error, arena=arena) from None
        self._path = path
        self._weights = weights, given  # onnxruntime refers to their memory
        values = (*self._session.get_inputs(), *self._session.get_outputs())
        self._needs_arrays = any(not _NUMERIC_TENSOR.match(value.type) for value in values)
        self.run_s = 0.0

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs``; values stay onnxruntime's own, without a copy.

        Raises `InputError` for values that an operator refuses, such as an index beyond a table's end.
        """
        try:
            if self._needs_arrays:
                arrays = {name: to_numpy(value) for name, value in inputs.items()}
                began = time.perf_counter()
                texts = self._session.run(list(outputs), arrays)
                self.run_s = time.perf_counter() - began
                return dict(zip(outputs, map(_text, texts), strict=True))
            feeds = {name: to_ort(value) for name, value in inputs.items()}
            began = time.perf_counter()
            results = self._session.run_with_ort_values(list(outputs), feeds)
            self.run_s = time.perf_counter() - began
        except Exception as error:  # as above
            raise refused_input(self._path, error) from None
        return dict(zip(outputs, map(_detached, results) if len(outputs) > 1 else results, strict=True))

    def run_arrays(self, outputs: Sequence[str], inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the named ``outputs``, which are numbers that numpy knows, from arrays of numbers. See `run`."""
        try:
            return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))
        except Exception as error:  # as above
            raise refused_input(self._path, error) from None


def _detached(value: TensorValue) -> TensorValue:
    """Return a value over the same memory that can be dropped alone.

    One run returns references into one vector: the bytes of all values stay until the last is dropped (onnxruntime 1.31).
    An onnxruntime too old for ``from_dlpack`` has no way around that.
    """
    shareable = value.data_type() in _DLPACK_TYPES and hasattr(ort.OrtValue, "from_dlpack")
    return ort.OrtValue.from_dlpack(value) if shareable else value


def _text(value: Any) -> Any:
    """Return an array of Python's strings as numpy's own, which files hold without pickled objects; others as they are."""
    return value.astype(np.str_) if isinstance(value, np.ndarray) and value.dtype.kind == "O" else value


def open_session(
    path: Path,
    threads: int,
    weights: Mapping[str, TensorValue] = MappingProxyType({}),
    *,
    custom_ops: Path | None = None,
    reuse_memory: bool = True,
    optimize: bool = True,
    stock: bool = False,
    arena: bool = False,
) -> Session:
    """Open the model at ``path`` (the executor's default `SessionOpener`); onnxruntime maps weights that are not given."""
    settings = {"reuse_memory": reuse_memory, "optimize": optimize, "stock": stock, "arena": arena}
    return OrtSession(path, threads, weights, custom_ops, **settings)


def python_interface() -> OrtInterface:
    """Return the interface that this module is."""
    return OrtInterface(
        kind="python",
        version=ort.__version__,
        open_session=open_session,
        start=start_onnxruntime,
        register_arena=register_arena,
        place=value_place,
        to_output=to_numpy,
        direct_run=_direct_run,
    )


def _direct_run(session: Session, manifest: Manifest, inputs: Mapping[str, TensorValue]) -> DirectRun | None:
    from hyps.runtime.execution.direct_run import direct_run  # only bundles of one step need it

    return direct_run(session, manifest, inputs)


def to_ort(value: TensorValue) -> ort.OrtValue:
    """Return an onnxruntime value; that of an array or a `RawTensor` uses its memory."""
    if isinstance(value, np.ndarray):
        return ort.OrtValue.ortvalue_from_numpy(value)
    if isinstance(value, RawTensor):
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(_storage_array(value), value.onnx_type)
    return value


def _storage_array(tensor: RawTensor) -> NDArray[Any]:
    """Return a tensor's memory as an array of the type in which its elements are stored."""
    return np.frombuffer(tensor.memory, STORAGE_TYPES[tensor.dtype].storage).reshape(tensor.shape)


def memory_of(value: TensorValue) -> memoryview:
    """Return the bytes of a value of any type, which must outlive them; without a copy if they are contiguous."""
    if isinstance(value, RawTensor):
        return value.memory
    if isinstance(value, np.ndarray):
        array = value if value.flags.c_contiguous else np.ascontiguousarray(value)
        return array.reshape(-1).view(np.uint8).data
    return memoryview((ctypes.c_ubyte * value.tensor_size_in_bytes()).from_address(value.data_ptr())).cast("B")


def element_type(value: TensorValue) -> ElementType:
    """Return the type of a value's elements, from which `empty` makes a value of the same type."""
    if isinstance(value, RawTensor):
        return value.onnx_type
    return value.dtype if isinstance(value, np.ndarray) else int(value.element_type())


def empty(shape: Sequence[int], elements: ElementType) -> TensorValue:
    """Return a value whose bytes are still to be written."""
    if isinstance(elements, int):
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, elements)
    return np.empty(shape, elements)


def numpy_knows(dtype: str) -> bool:
    """Return whether numpy has this type; it lacks bfloat16, the 8-bit floats and the packed types, of `TensorRecord`."""
    known = STORAGE_TYPES.get(dtype)
    return known.storage == dtype if known else dtype not in PACKED_TYPES


def to_numpy(value: TensorValue) -> TensorValue:
    """Return a value that a session computed as a numpy array; one of a type that numpy lacks stays as it is."""
    if isinstance(value, RawTensor):
        return _storage_array(value) if numpy_knows(value.dtype) else to_ort(value)
    if isinstance(value, np.ndarray) or value.data_type() in _UNKNOWN_TO_NUMPY:
        return value
    return value.numpy()
