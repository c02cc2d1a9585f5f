"""Run sessions through the C library; tensors are `hyps.runtime.execution.tensor.RawTensor`."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyps.runtime.bundle.records.steps import ActivationsRecord
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.execution.c_api.library import CLibrary, Handle, OrtError
from hyps.runtime.execution.c_api.memory_reuse import disable_memory_reuse
from hyps.runtime.execution.interface import (
    FATAL_SEVERITY,
    IDENTITY,
    OrtInterface,
    SessionSettings,
    arena_settings,
    refused_input,
    session_settings,
    unopened,
)
from hyps.runtime.execution.tensor import TYPE_NAMES, RawTensor, TensorValue

#: ``OrtArenaAllocator`` and ``OrtMemTypeDefault``; onnxruntime takes no notice of the first for memory that it is given.
_ARENA_ALLOCATOR, _DEFAULT_MEMORY = 1, 0


class Runtime:
    """onnxruntime in this process: its library, its environment, and its name for the memory of the processor."""

    def __init__(self, path: Path, *, is_lean: bool = True) -> None:
        self.library = CLibrary(path, is_lean=is_lean)
        self._environment = self.library.pointer("CreateEnv", FATAL_SEVERITY, b"hyps")  # it lives as long as the process
        self._memory = self.library.made("MemoryInfo", "CreateCpuMemoryInfo", _ARENA_ALLOCATOR, _DEFAULT_MEMORY)

    def options(self, threads: int, settings: SessionSettings) -> Handle:
        """Return the options of a session."""
        library = self.library
        options = library.made("SessionOptions", "CreateSessionOptions")
        if settings.level is not None:
            library.call("SetSessionGraphOptimizationLevel", options.pointer, settings.level)
        for key, value in settings.entries.items():
            library.call("AddSessionConfigEntry", options.pointer, key.encode(), value.encode())
        if not settings.reuses_memory:
            disable_memory_reuse(library, options)
        library.call("DisableCpuMemArena", options.pointer)
        library.call("EnableMemPattern" if settings.has_pattern else "DisableMemPattern", options.pointer)
        library.call("SetIntraOpNumThreads", options.pointer, threads)
        library.call("SetInterOpNumThreads", options.pointer, 1)
        library.call("SetSessionLogSeverityLevel", options.pointer, FATAL_SEVERITY)
        return options

    def start(self) -> None:
        """Open and drop a session of one operator."""
        self._identity(arena=False)

    def register_arena(self, record: ActivationsRecord) -> int:
        """Make an arena the one that sessions opened from now on share, and return its address.

        See `hyps.runtime.execution.activation_arena`. The first tensor is at the beginning.
        """
        library = self.library
        settings = arena_settings(record)
        names = (ctypes.c_char_p * len(settings))(*map(str.encode, settings))
        values = (ctypes.c_size_t * len(settings))(*settings.values())
        # not CreateArenaCfg, which forgets where to split blocks
        place = ctypes.addressof(names), ctypes.addressof(values), len(settings)
        arena = library.made("ArenaCfg", "CreateArenaCfgV2", *place)
        library.call("CreateAndRegisterAllocator", self._environment, self._memory.pointer, arena.pointer)
        one = RawTensor("float32", (1,), memoryview(bytearray(4)))
        first = CSession(self, self._identity(arena=True), Path("identity")).run(["y"], {"x": one})["y"]
        return _place(first)[0]

    def _identity(self, *, arena: bool) -> Handle:
        options = self.options(1, session_settings(arena=arena))
        place = (IDENTITY, len(IDENTITY), options.pointer)
        return self.library.made("Session", "CreateSessionFromArray", self._environment, *place)

    def open_session(
        self,
        path: Path,
        threads: int,
        weights: Mapping[str, RawTensor],
        *,
        reuse_memory: bool,
        optimize: bool,
        stock: bool = False,
        arena: bool = False,
    ) -> CSession:
        """Open the partition at ``path``; see `hyps.runtime.execution.interface.SessionOpener`."""
        settings = session_settings(reuse_memory=reuse_memory, optimize=optimize, stock=stock, arena=arena)
        options = self.options(threads, settings)
        values = {name: self.value(tensor) for name, tensor in weights.items()}
        try:
            for name, value in values.items():
                self.library.call("AddInitializer", options.pointer, name.encode(), value.pointer)
            place = (os.fsencode(path), options.pointer)
            session = self.library.made("Session", "CreateSession", self._environment, *place, uses=values)
        except OrtError as error:
            raise unopened(path, error, arena=arena) from None
        return CSession(self, session, path)

    def value(self, tensor: RawTensor) -> Handle:
        """Return onnxruntime's value of a tensor, which uses the tensor's memory."""
        if isinstance(tensor.owner, Handle):
            return tensor.owner
        shape = (ctypes.c_int64 * len(tensor.shape))(*tensor.shape)
        nbytes = len(tensor.memory)
        content = ctypes.c_char.from_buffer(tensor.memory) if nbytes else ctypes.c_char()
        where = (self._memory.pointer, ctypes.addressof(content), nbytes, ctypes.addressof(shape), len(shape))
        name = "CreateTensorWithDataAsOrtValue"
        return self.library.made("Value", name, *where, tensor.onnx_type, uses=(tensor, content))

    def tensor(self, value: Handle) -> RawTensor:
        """Return a tensor over the memory of a value that a session computed."""
        library = self.library
        info = library.made("TensorTypeAndShapeInfo", "GetTensorTypeAndShape", value.pointer)
        kind, count = ctypes.c_int(), ctypes.c_size_t()
        library.call("GetTensorElementType", info.pointer, ctypes.addressof(kind))
        library.call("GetDimensionsCount", info.pointer, ctypes.addressof(count))
        extents = (ctypes.c_int64 * count.value)()
        library.call("GetDimensions", info.pointer, ctypes.addressof(extents), count)
        if kind.value not in TYPE_NAMES:
            raise OrtError(f"a tensor of type {kind.value}, which is none of numbers")
        record = TensorRecord(dtype=TYPE_NAMES[kind.value], shape=tuple(extents))
        address = library.pointer("GetTensorMutableData", value.pointer) if math.prod(record.shape) else None
        content = (ctypes.c_ubyte * record.nbytes).from_address(address) if address else bytearray()
        return RawTensor(record.dtype, record.shape, memoryview(content).cast("B"), value)


class CSession:
    """A partition opened in onnxruntime; dropping it releases its weights and workspace."""

    def __init__(self, runtime: Runtime, session: Handle, path: Path) -> None:
        self._runtime, self._session, self._path = runtime, session, path
        self.run_s = 0.0

    def run(self, outputs: Sequence[str], inputs: Mapping[str, RawTensor]) -> dict[str, RawTensor]:
        """Compute the named ``outputs``; see `hyps.runtime.execution.interface.Session`.

        Raises `InputError` for values that an operator refuses, such as an index beyond a table's end.
        """
        library = self._runtime.library
        values = [self._runtime.value(tensor) for tensor in inputs.values()]
        given = (ctypes.c_void_p * len(values))(*(value.pointer for value in values))
        results = (ctypes.c_size_t * len(outputs))()
        names = (ctypes.c_char_p * len(inputs))(*(name.encode() for name in inputs))
        wanted = (ctypes.c_char_p * len(outputs))(*(name.encode() for name in outputs))
        began = time.perf_counter()
        try:
            library.call("Run", self._session.pointer, None, names, given, len(values), wanted, len(outputs), results)
            self.run_s = time.perf_counter() - began
            computed = [self._runtime.tensor(library.owned("Value", result)) for result in results]
        except OrtError as error:
            raise refused_input(self._path, error) from None
        return dict(zip(outputs, computed, strict=True))


def _place(value: TensorValue) -> tuple[int, int]:
    """Return where in memory one of onnxruntime's own values begins and ends; 0 for others."""
    if not isinstance(value, RawTensor) or not isinstance(value.owner, Handle) or not len(value.memory):
        return 0, 0
    start = ctypes.addressof(ctypes.c_char.from_buffer(value.memory))
    return start, start + len(value.memory)


def c_interface(path: Path, *, is_lean: bool = True) -> OrtInterface:
    """Load the C library at ``path`` and return the interface to it; see `CLibrary` for ``is_lean``."""
    runtime = Runtime(path, is_lean=is_lean)
    return OrtInterface(
        kind="c",
        version=runtime.library.version,
        open_session=runtime.open_session,
        start=runtime.start,
        register_arena=runtime.register_arena,
        place=_place,
        to_output=lambda value: value,
    )
