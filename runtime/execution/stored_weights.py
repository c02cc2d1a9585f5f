"""Read weights into memory from the file in which they are stored: as they are, or in compressed frames.

A frame (`hyps.runtime.bundle.manifest.FrameRecord`) is decompressed as a whole, into the place that it has in memory. While
that is done, the kernel reads the next one.
"""

from __future__ import annotations

import itertools
import os
from array import array
from bisect import bisect_right
from pathlib import Path
from threading import local
from typing import Any, Protocol

import numpy as np

from hyps.runtime.bundle.manifest import FRAME_BYTES, CompressedRecord, WeightsRecord
from hyps.runtime.errors import BundleError, LibraryError

#: Read at a time: large enough for storage and small enough for the processor's cache.
READ_BLOCK_BYTES = 1 << 20
_COPY_AGAIN = "copy the bundle again"


class StoredWeights(Protocol):
    """The file in which a step's weights are stored."""

    path: Path

    def reachable(self, stop: int) -> int:
        """Return how many bytes can be in memory when none after ``stop`` may be."""
        ...

    def read(self, file: int, memory: memoryview, start: int, stop: int) -> int:
        """Read some bytes from ``start`` on, of which there is one before ``stop``; return where they end.

        ``file`` is this file, opened. ``memory`` is for all of the weights. Raises `BundleError`, and `OSError`.
        """
        ...


def stored_weights(bundle: Path, record: WeightsRecord, *, keep_cached: bool) -> StoredWeights:
    """Return a step's weights as they are stored; without ``keep_cached`` the kernel forgets what was read.

    Raises `LibraryError` where they are compressed and zstandard is not installed.
    """
    if record.compressed:
        return _CompressedWeights(bundle / record.compressed.path, record.compressed, keep_cached=keep_cached)
    return _PlainWeights(bundle / record.path, keep_cached=keep_cached)


class _PlainWeights:
    """Weights that are stored as they are."""

    def __init__(self, path: Path, *, keep_cached: bool) -> None:
        self.path = path
        self._keep_cached = keep_cached

    def reachable(self, stop: int) -> int:
        return stop

    def read(self, file: int, memory: memoryview, start: int, stop: int) -> int:
        count = os.preadv(file, [memory[start : min(stop, start + READ_BLOCK_BYTES)]], start)
        if not count:
            raise BundleError(f"{self.path} became shorter", _COPY_AGAIN)
        if not self._keep_cached:
            _advise(file, start, count, "POSIX_FADV_DONTNEED")
        return start + count


class _CompressedWeights:
    """Weights that are stored in frames. ``_ends`` are those of the frames in the weights, ``_starts`` those in the file."""

    def __init__(self, path: Path, record: CompressedRecord, *, keep_cached: bool) -> None:
        self.path = path
        self._keep_cached = keep_cached
        self._frames = record.frames
        self._ends = array("q", itertools.accumulate(each.plain_bytes for each in record.frames))
        self._starts = array("q", itertools.accumulate((each.stored_bytes for each in record.frames), initial=0))
        self._zstandard = _zstandard()

    def reachable(self, stop: int) -> int:
        count = bisect_right(self._ends, stop)
        return self._ends[count - 1] if count else 0

    def read(self, file: int, memory: memoryview, start: int, stop: int) -> int:
        index = bisect_right(self._ends, start)
        frame, offset, end = self._frames[index], self._starts[index], self._ends[index]
        target = memory[end - frame.plain_bytes : end]
        is_compressed = frame.stored_bytes < frame.plain_bytes
        stored = _workspace().stored[: frame.stored_bytes] if is_compressed else target
        self._read_exactly(file, stored, offset)
        if index + 1 < len(self._frames):
            _advise(file, self._starts[index + 1], self._frames[index + 1].stored_bytes, "POSIX_FADV_WILLNEED")
        if is_compressed:
            planes = _workspace().planes[: frame.plain_bytes] if frame.item_bytes > 1 else target
            self._decompress(index, stored, planes)
            if frame.item_bytes > 1:
                merge_planes(planes, frame.item_bytes, target)
        if not self._keep_cached:
            _advise(file, offset, frame.stored_bytes, "POSIX_FADV_DONTNEED")
        return end

    def _read_exactly(self, file: int, buffer: memoryview, offset: int) -> None:
        filled = 0
        while filled < len(buffer):
            count = os.preadv(file, [buffer[filled:]], offset + filled)
            if not count:
                raise BundleError(f"{self.path} became shorter", _COPY_AGAIN)
            filled += count

    def _decompress(self, index: int, stored: memoryview, planes: memoryview) -> None:
        """Decompress a frame into ``planes``. One that would need more is refused before it is decompressed."""
        try:
            if self._zstandard.get_frame_parameters(stored).content_size == len(planes):
                if _workspace().decompressor.stream_reader(stored).readinto(planes) == len(planes):
                    return
            problem = "it has another size"
        except self._zstandard.ZstdError as error:
            problem = str(error)
        raise BundleError(f"{self.path} was changed: frame {index} cannot be decompressed: {problem}", _COPY_AGAIN)


class _Workspace:
    """The memory in which a thread decompresses one frame after the other."""

    def __init__(self) -> None:
        self.decompressor = _zstandard().ZstdDecompressor(max_window_size=FRAME_BYTES)
        self.stored = memoryview(bytearray(FRAME_BYTES))
        self.planes = memoryview(bytearray(FRAME_BYTES))


_this_thread = local()


def _workspace() -> _Workspace:
    """Return this thread's workspace, made when the thread first needs it."""
    if not hasattr(_this_thread, "workspace"):
        _this_thread.workspace = _Workspace()
    found: _Workspace = _this_thread.workspace
    return found


def merge_planes(planes: memoryview, item_bytes: int, target: memoryview) -> None:
    """Write the items whose first bytes are the first of ``item_bytes`` planes, and so on, to ``target``."""
    merged = np.frombuffer(target, np.uint8)
    for index, plane in enumerate(np.frombuffer(planes, np.uint8).reshape(item_bytes, -1)):
        merged[index::item_bytes] = plane


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        problem = "the bundle's weights are compressed, and zstandard is not installed"
        raise LibraryError(problem, "pip install 'hyps[compress]'") from None
    return zstandard


def _advise(file: int, start: int, count: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, count, getattr(os, advice))
