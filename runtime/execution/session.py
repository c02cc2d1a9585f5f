"""Open onnxruntime sessions with the options that keep memory small (DESIGN.md section 5), or with its default options.

The lean options: no prepacking: it copies every weight. No arena of onnxruntime's own and no memory pattern: they hold blocks as
large as the peak, or larger; `hyps.runtime.execution.activation_arena` is bounded. Graph optimisation at most EXTENDED: ALL rewrites convolution weights into the layout of this processor. No spinning: a session's
threads would compete for a while with the next session's and with the thread that reads weights. On two cores a bundle of
VGG16 took 1.0 s with spinning and takes 0.16 s without; the whole model takes up to 5 % longer without.

`session_options` is the one place that translates a tier of `hyps.runtime.bundle.manifest.SessionRecord`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from hyps.runtime.bundle.manifest import OBSERVED, PACKED_TYPES, SHAPE_CHECK, STORAGE_TYPES, STRING_TYPE
from hyps.runtime.errors import BundleError, InputError, LibraryError

#: Part of onnxruntime's message about an arena that may not grow.
_ARENA_FULL = "is smaller than requested bytes of"
#: Part of onnxruntime's message about an operator that it does not know.
_UNREGISTERED = "is not a registered"
#: The name of a tensor in onnxruntime's message about its shape, which an operator checks or a step that begins there.
_CHECKED = re.compile(rf"Name:'(.*){re.escape(SHAPE_CHECK)}/|dimensions for input: (.*){re.escape(OBSERVED)} for")
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
#: A model of one Identity, in ONNX's format.
_IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
#: The names of element types by their numbers in ONNX, and onnxruntime's own names of those that numpy lacks.
_TYPE_NAMES = {kind.onnx: name for types in (STORAGE_TYPES, PACKED_TYPES) for name, kind in types.items()}
_UNKNOWN_TO_NUMPY = frozenset(
    f"tensor({name})"
    for name in (
        "bfloat16",
        *(f"float8{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0")),
        "float4e2m1",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4)),
    )
)
#: A tensor between steps: an onnxruntime value, which is passed on without a copy, or a numpy array.
TensorValue = Any
#: The type of a value's elements: numpy's for an array; ONNX's for an onnxruntime value, as numpy does not know all types.
ElementType = np.dtype[Any] | int


class Session(Protocol):
    """A partition that is ready to run."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs`` from named ``inputs``."""
        ...


class SessionOpener(Protocol):
    """A function that opens sessions: the seam between the executor and onnxruntime."""

    def __call__(
        self,
        path: Path,
        threads: int,
        weights: Mapping[str, TensorValue],
        *,
        reuse_memory: bool,
        optimize: bool,
        stock: bool,
        arena: bool,
    ) -> Session:
        """Open the partition at ``path``, whose ``weights`` are in memory already.

        ``reuse_memory``, ``optimize`` and ``stock`` are what `hyps.runtime.bundle.manifest.SessionRecord` says of the step;
        ``arena`` says that the process has the arena that it asks for.
        """
        ...


class ActivationArenaFull(Exception):
    """The arena of the activations is too small: the schedule has to run without it."""


def session_options(
    threads: int, custom_ops: Path | None = None, *, stock: bool = False, arena: bool = False
) -> ort.SessionOptions:
    """Return the options of a bundle's sessions, and of the whole model's where the two are compared bit for bit.

    They are the lean ones, or ``stock``: onnxruntime's defaults. With ``arena`` activations are in the process's arena
    (`hyps.runtime.execution.activation_arena`), which changes no bit. ``custom_ops`` is a library with the user's own
    operators. Raises `LibraryError` where it cannot be loaded.
    """
    options = ort.SessionOptions()
    if not stock:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not stock or arena:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    if arena:
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # log nothing: errors are raised as well
    if custom_ops:
        try:
            options.register_custom_ops_library(str(custom_ops))
        except Exception as error:  # onnxruntime's exception classes have no common public base
            raise LibraryError(f"--custom-ops {custom_ops} cannot be loaded: {_first_line(error)}") from None
    return options


def start_onnxruntime() -> None:
    """Open and drop a session of one operator: the first session of a process needs 4.5 MB more code than any other.

    A caller that gives those pages back before the weights come has a peak that is smaller by as much.
    """
    identity_session()


def identity_session(*, arena: bool = False) -> ort.InferenceSession:
    """Return a session that computes ``y`` of ``x``, one float32; ``arena`` is that of `session_options`."""
    return ort.InferenceSession(_IDENTITY, session_options(1, arena=arena), providers=["CPUExecutionProvider"])


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
        options.enable_mem_reuse = reuse_memory and not arena  # an arena reuses it in smaller pieces
        if not optimize:  # halves the time to open it
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, value in weights.items():
            options.add_initializer(name, value)
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            if arena and _ARENA_FULL in str(error):
                raise ActivationArenaFull from None
            remedy = "name the library of its operators with --custom-ops" if _UNREGISTERED in str(error) else ""
            raise BundleError(f"onnxruntime cannot open {path}: {_first_line(error)}", remedy) from None
        self._path = path
        self._weights = weights  # onnxruntime refers to their memory
        values = (*self._session.get_inputs(), *self._session.get_outputs())
        self._needs_arrays = any(not _NUMERIC_TENSOR.match(value.type) for value in values)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Compute the named ``outputs``; values stay onnxruntime's own, without a copy.

        Raises `InputError` for values that an operator refuses, such as an index beyond a table's end.
        """
        try:
            if self._needs_arrays:
                arrays = {name: to_numpy(value) for name, value in inputs.items()}
                return dict(zip(outputs, map(_text, self._session.run(list(outputs), arrays)), strict=True))
            feeds = {name: to_ort(value) for name, value in inputs.items()}
            results = self._session.run_with_ort_values(list(outputs), feeds)
        except Exception as error:  # as above
            if checked := _CHECKED.search(str(error)):
                name = checked[1] or checked[2]
                raise InputError(
                    f"tensor {name!r} has another shape for this input than in the runs that the plan is based on",
                    "its shape depends on the input's values: export the model with that shape fixed, and compile it again",
                ) from None
            if _ARENA_FULL in str(error):
                raise ActivationArenaFull from None
            raise InputError(f"onnxruntime cannot run {self._path} on this input: {_first_line(error)}") from None
        return dict(zip(outputs, map(_detached, results), strict=True))


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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


def to_ort(value: TensorValue) -> ort.OrtValue:
    """Return an onnxruntime value; that of a numpy array uses the array's memory."""
    return ort.OrtValue.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value


def memory_of(value: TensorValue) -> memoryview:
    """Return the bytes of a value of any type, which must outlive them; without a copy if they are contiguous."""
    if isinstance(value, np.ndarray):
        array = value if value.flags.c_contiguous else np.ascontiguousarray(value)
        return array.reshape(-1).view(np.uint8).data
    return memoryview((ctypes.c_ubyte * value.tensor_size_in_bytes()).from_address(value.data_ptr())).cast("B")


def element_type(value: TensorValue) -> ElementType:
    """Return the type of a value's elements, from which `empty` makes a value of the same type."""
    return value.dtype if isinstance(value, np.ndarray) else int(value.element_type())


def shape_of(value: TensorValue) -> tuple[int, ...]:
    """Return the shape of a value."""
    return tuple(value.shape if isinstance(value, np.ndarray) else value.shape())


def empty(shape: Sequence[int], elements: ElementType) -> TensorValue:
    """Return a value whose bytes are still to be written."""
    if isinstance(elements, int):
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, elements)
    return np.empty(shape, elements)


def numpy_knows(dtype: str) -> bool:
    """Return whether numpy has this type; it lacks bfloat16, the 8-bit floats and the packed types, of `TensorRecord`."""
    known = STORAGE_TYPES.get(dtype)
    return known.storage == dtype if known else dtype not in PACKED_TYPES


def dtype_of(value: TensorValue) -> str:
    """Return the type of a value's elements, as a `TensorRecord` names it."""
    if isinstance(value, np.ndarray):
        return dtype_name(value.dtype)
    return str(_TYPE_NAMES.get(value.element_type(), value.data_type()))


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of an array's type as a `TensorRecord` has it: that of strings does not depend on their lengths."""
    return STRING_TYPE if dtype.kind == "U" else dtype.name


def to_numpy(value: TensorValue) -> TensorValue:
    """Return a value that a session computed as a numpy array; one of a type that numpy lacks stays as it is."""
    if isinstance(value, np.ndarray) or value.data_type() in _UNKNOWN_TO_NUMPY:
        return value
    return value.numpy()
