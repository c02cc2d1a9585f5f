"""Switch off the reuse of memory in a session's options, for which the C interface has no function.

Three neighbours among the options are one byte each: memory pattern, memory reuse and arena. The functions that switch off
the first and the last show where they are. In 1.23, 1.28, 1.31 and 1.32 they are where this looks.
"""

from __future__ import annotations

import ctypes

from hyps.runtime.errors import LibraryError
from hyps.runtime.execution.c_api.library import CLibrary, Handle

#: The bytes of the options that are searched; they are longer in every version.
_SEARCHED_BYTES = 128


def disable_memory_reuse(library: CLibrary, options: Handle) -> None:
    """Switch it off in new options, together with memory pattern and arena. Raises `LibraryError` for an unknown layout."""
    pattern = _switched_off(library, options, "DisableMemPattern")
    arena = _switched_off(library, options, "DisableCpuMemArena")
    if not (len(pattern) == len(arena) == 1 and arena[0] - pattern[0] == 2 and _content(options)[pattern[0] + 1] == 1):
        raise LibraryError(f"onnxruntime {library.version} has other session options", "install a version that was tried")
    ctypes.c_ubyte.from_address(options.pointer + pattern[0] + 1).value = 0


def _switched_off(library: CLibrary, options: Handle, function: str) -> list[int]:
    """Call a function, and return the places of the bytes that it changed from 1 to 0."""
    before = _content(options)
    library.call(function, options.pointer)
    after = _content(options)
    return [place for place in range(_SEARCHED_BYTES) if (before[place], after[place]) == (1, 0)]


def _content(options: Handle) -> bytes:
    return ctypes.string_at(options.pointer, _SEARCHED_BYTES)
