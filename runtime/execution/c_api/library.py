"""Load the C library of the installed onnxruntime, and call its functions by their places in the table that it hands out.

The places are part of onnxruntime's promise of a stable binary interface: a release adds functions at the table's end only
(``OrtApi`` in ``onnxruntime_c_api.h``). A library of a version that nobody tried is not used all the same.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hyps.runtime.device.process_memory import CodePages
from hyps.runtime.library_memory import NEWEST_C_MINOR, OLDEST_C_MINOR

#: The functions that return a status, by name: the place in the table, and the types of the arguments.
_FUNCTIONS: Final[Mapping[str, tuple[int, tuple[Any, ...]]]] = {
    "CreateEnv": (3, (c_int, c_char_p, c_void_p)),
    "CreateSession": (7, (c_void_p, c_char_p, c_void_p, c_void_p)),
    "CreateSessionFromArray": (8, (c_void_p, c_char_p, c_size_t, c_void_p, c_void_p)),
    "Run": (9, (c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p)),
    "CreateSessionOptions": (10, (c_void_p,)),
    "EnableMemPattern": (16, (c_void_p,)),
    "DisableMemPattern": (17, (c_void_p,)),
    "DisableCpuMemArena": (19, (c_void_p,)),
    "SetSessionLogSeverityLevel": (22, (c_void_p, c_int)),
    "SetSessionGraphOptimizationLevel": (23, (c_void_p, c_int)),
    "SetIntraOpNumThreads": (24, (c_void_p, c_int)),
    "SetInterOpNumThreads": (25, (c_void_p, c_int)),
    "CreateTensorWithDataAsOrtValue": (49, (c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_int, c_void_p)),
    "GetTensorMutableData": (51, (c_void_p, c_void_p)),
    "GetTensorElementType": (60, (c_void_p, c_void_p)),
    "GetDimensionsCount": (61, (c_void_p, c_void_p)),
    "GetDimensions": (62, (c_void_p, c_void_p, c_size_t)),
    "GetTensorTypeAndShape": (65, (c_void_p, c_void_p)),
    "CreateCpuMemoryInfo": (69, (c_int, c_int, c_void_p)),
    "AddSessionConfigEntry": (130, (c_void_p, c_char_p, c_char_p)),
    "CreateAndRegisterAllocator": (144, (c_void_p, c_void_p, c_void_p)),
    "AddInitializer": (150, (c_void_p, c_char_p, c_void_p)),
    "CreateArenaCfgV2": (164, (c_void_p, c_void_p, c_size_t, c_void_p)),
}
#: The places of the functions that release what others made, by what that is.
_RELEASES: Final[Mapping[str, int]] = {
    "Status": 93,
    "MemoryInfo": 94,
    "Session": 95,
    "Value": 96,
    "TensorTypeAndShapeInfo": 99,
    "SessionOptions": 100,
    "ArenaCfg": 157,
}
_GET_ERROR_CODE, _GET_ERROR_MESSAGE = 1, 2
_TABLE_LENGTH = 165
#: onnxruntime's names of its error codes, as its Python module prints them.
_CODES = (
    *("SUCCESS", "FAIL", "INVALID_ARGUMENT", "NO_SUCHFILE", "NO_MODEL", "ENGINE_ERROR", "RUNTIME_EXCEPTION"),
    *("INVALID_PROTOBUF", "MODEL_LOADED", "NOT_IMPLEMENTED", "INVALID_GRAPH", "EP_FAIL"),
)


class OrtError(Exception):
    """An error of onnxruntime, worded as its Python module words it."""


class Handle:
    """An object of onnxruntime's, released with this; what it ``uses`` is kept until then."""

    __slots__ = ("_release", "pointer", "uses")

    def __init__(self, pointer: int, release: Callable[[int], None], uses: object = None) -> None:
        self.pointer, self._release, self.uses = pointer, release, uses

    def __del__(self) -> None:
        self._release(self.pointer)


class _Base(ctypes.Structure):
    """``OrtApiBase``."""

    _fields_ = (("api", ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)), ("version", ctypes.CFUNCTYPE(c_char_p)))


class CLibrary:
    """The functions of a C library of onnxruntime that is loaded, by their names in ``OrtApi``.

    ``is_lean``: few pages of its code are mapped at a time (see `CodePages.map_singly`).
    """

    def __init__(self, path: Path, *, is_lean: bool = True) -> None:
        self._library = ctypes.CDLL(str(path))
        code = CodePages()
        code.release()
        if is_lean:
            code.map_singly()
        self._library.OrtGetApiBase.restype = ctypes.POINTER(_Base)
        base = self._library.OrtGetApiBase().contents
        self.version: str = base.version().decode()
        table = (ctypes.c_size_t * _TABLE_LENGTH).from_address(base.api(OLDEST_C_MINOR))
        self._functions = {name: ctypes.CFUNCTYPE(c_void_p, *types)(table[at]) for name, (at, types) in _FUNCTIONS.items()}
        self._releases = {name: ctypes.CFUNCTYPE(None, c_void_p)(table[at]) for name, at in _RELEASES.items()}
        self._code = ctypes.CFUNCTYPE(c_int, c_void_p)(table[_GET_ERROR_CODE])
        self._message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(table[_GET_ERROR_MESSAGE])

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises `OrtError` where its status is not that all went well."""
        status = self._functions[name](*arguments)
        if not status:
            return
        code, message = self._code(status), (self._message(status) or b"").decode(errors="replace")
        self._releases["Status"](status)
        raise OrtError(f"[ONNXRuntimeError] : {code} : {_CODES[code] if code < len(_CODES) else code} : {message}")

    def made(self, kind: str, name: str, *arguments: Any, uses: object = None) -> Handle:
        """Call a function whose last argument is the place for a new object of this kind, and return the object."""
        return Handle(self.pointer(name, *arguments), self._releases[kind], uses)

    def owned(self, kind: str, pointer: int) -> Handle:
        """Return an object of this kind that onnxruntime made."""
        return Handle(pointer, self._releases[kind])

    def pointer(self, name: str, *arguments: Any) -> int:
        """Call a function whose last argument is the place for a pointer, and return that."""
        place = c_void_p()
        self.call(name, *arguments, ctypes.addressof(place))
        return place.value or 0


def find_library() -> Path | None:
    """Return the C library in the installed package of onnxruntime; None where there is none of a version that was tried."""
    spec = find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder, "capi").glob("libonnxruntime.so.1.*"):
            version = re.fullmatch(r"libonnxruntime\.so\.1\.(\d{1,4})\.\d+", path.name)
            if version and OLDEST_C_MINOR <= int(version[1]) <= NEWEST_C_MINOR:
                return path
    return None
