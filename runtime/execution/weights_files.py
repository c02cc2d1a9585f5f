"""Read weights into memory from the file in which they are stored: as they are, or in compressed frames.

A frame (`hyps.runtime.bundle.manifest.FrameRecord`) is decompressed as a whole, into the place that it has in memory. The
kernel reads the next one meanwhile, unasked: asking for it (``POSIX_FADV_WILLNEED``) gained nothing.
"""

from __future__ import annotations

import itertools
import os
from array import array
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from threading import local
from typing import Protocol

from hyps.runtime.bundle.compression import FrameError, zstandard_module
from hyps.runtime.bundle.manifest import CompressedRecord, WeightsRecord
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.frame_decoder import FrameDecoder

#: Read at a time: large enough for storage and small enough for the processor's cache.
READ_BLOCK_BYTES = 1 << 20
_COPY_AGAIN = "copy the bundle again"


class WeightsFile(Protocol):
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

    def forget(self, start: int) -> None:
        """Have the kernel drop from its cache, unless it is to keep them, what was mapped from ``start`` on."""
        ...


def weights_file(bundle: Path, record: WeightsRecord, *, keep_cached: bool) -> WeightsFile:
    """Return a step's weights as they are stored; without ``keep_cached`` the kernel forgets what was read.

    Raises `LibraryError` where they are compressed and zstandard is not installed.
    """
    if record.compressed:
        return _CompressedFile(bundle / record.compressed.path, record.compressed, keep_cached=keep_cached)
    return _PlainFile(bundle / record.path, keep_cached=keep_cached)


class _PlainFile:
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
            _forget(file, start, count)
        return start + count

    def forget(self, start: int) -> None:
        if not self._keep_cached:
            with suppress(OSError), self.path.open("rb", buffering=0) as stream:
                _forget(stream.fileno(), start, 0)


class _CompressedFile:
    """Weights that are stored in frames. ``_ends`` are those of the frames in the weights, ``_starts`` those in the file."""

    def __init__(self, path: Path, record: CompressedRecord, *, keep_cached: bool) -> None:
        self.path = path
        self._keep_cached = keep_cached
        self._frames = record.frames
        self._ends = array("q", itertools.accumulate(each.plain_bytes for each in record.frames))
        self._starts = array("q", itertools.accumulate((each.stored_bytes for each in record.frames), initial=0))
        zstandard_module()  # where it is missing, say so before anything is read

    def reachable(self, stop: int) -> int:
        count = bisect_right(self._ends, stop)
        return self._ends[count - 1] if count else 0

    def read(self, file: int, memory: memoryview, start: int, stop: int) -> int:
        index = bisect_right(self._ends, start)
        frame, offset, end = self._frames[index], self._starts[index], self._ends[index]
        target = memory[end - frame.plain_bytes : end]
        is_compressed = frame.stored_bytes < frame.plain_bytes
        decoder = _this_threads_decoder()
        self._read_exactly(file, decoder.stored[: frame.stored_bytes] if is_compressed else target, offset)
        if is_compressed:
            try:
                decoder.decode(frame.stored_bytes, frame.item_bytes, target)
            except FrameError as error:
                problem = f"{self.path} was changed: frame {index} cannot be decompressed: {error}"
                raise BundleError(problem, _COPY_AGAIN) from None
        if not self._keep_cached:
            _forget(file, offset, frame.stored_bytes)
        return end

    def forget(self, start: int) -> None:
        """Do nothing: what is read is forgotten at once."""

    def _read_exactly(self, file: int, buffer: memoryview, offset: int) -> None:
        filled = 0
        while filled < len(buffer):
            count = os.preadv(file, [buffer[filled:]], offset + filled)
            if not count:
                raise BundleError(f"{self.path} became shorter", _COPY_AGAIN)
            filled += count


_decoders = local()


def _this_threads_decoder() -> FrameDecoder:
    """Return the decoder of this thread, made when the thread first needs it."""
    if not hasattr(_decoders, "decoder"):
        _decoders.decoder = FrameDecoder()
    decoder: FrameDecoder = _decoders.decoder
    return decoder


def _forget(file: int, start: int, count: int) -> None:
    """Have the kernel drop what was read from its cache; with a ``count`` of 0 all that follows."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, count, os.POSIX_FADV_DONTNEED)
