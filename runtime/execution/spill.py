"""Tensors that wait for a later step: in memory within a limit, beyond it in a temporary file."""

from __future__ import annotations

import errno
import mmap
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import IO, NamedTuple

from hyps.runtime.errors import OutputError
from hyps.runtime.execution.session import Kind, TensorValue, empty, kind_of, memory_of, shape_of

#: What a set costs besides its tensors, wherever they are: the entries by number (measured: 0.3 KB).
SET_BYTES = 512
_PAGE_BYTES = mmap.PAGESIZE


class _Layout(NamedTuple):
    """(name, type, shape, bytes) of the tensors of a set, which lie one after the other, and their bytes together."""

    tensors: tuple[tuple[str, Kind, tuple[int, ...], int], ...]
    nbytes: int


class TensorStore:
    """Sets of tensors by number. What does not fit into ``limit_bytes`` goes to a file without a name, made when needed.

    A set in memory has pages of its own: tensors that come and go by the dozen in malloc's heap would leave holes, and
    what is resident would not be known. Sets are taken in the order in which they were put: the one put last is needed
    last, and is the first to go to the file.
    """

    def __init__(self) -> None:
        self.limit_bytes = 0
        self.spilled_bytes = 0
        self.file_bytes = 0
        self._page_bytes = 0
        self._held: dict[int, tuple[mmap.mmap, _Layout]] = {}
        self._spilled: dict[int, tuple[int, _Layout]] = {}
        self._layouts: dict[_Layout, _Layout] = {}
        self._file: IO[bytes] | None = None
        self._free: dict[int, list[int]] = defaultdict(list)

    @property
    def held_bytes(self) -> int:
        """Memory that the sets take."""
        return self._page_bytes + SET_BYTES * (len(self._held) + len(self._spilled))

    def put(self, number: int, tensors: Mapping[str, TensorValue]) -> None:
        """Keep copies of ``tensors``; raises `OutputError` when the temporary file cannot be written."""
        layout = self._layout(tensors)
        if self.held_bytes + SET_BYTES + _pages(layout.nbytes) <= self.limit_bytes:
            pages, offset = mmap.mmap(-1, _pages(layout.nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 0
            for value in tensors.values():
                data = memory_of(value)
                pages[offset : offset + len(data)] = data
                offset += len(data)
            self._held[number] = pages, layout
            self._page_bytes += len(pages)
        else:
            self._spilled[number] = self._place(layout), layout
            offset = self._spilled[number][0]
            for value in tensors.values():
                self._write(data := memory_of(value), offset)
                offset += len(data)
            self.set_limit(self.limit_bytes)

    def take(self, number: int) -> dict[str, TensorValue]:
        """Tensors that were kept, which are not kept any longer."""
        found: dict[str, TensorValue] = {}
        if number in self._held:
            pages, layout = self._held.pop(number)
            self._page_bytes -= len(pages)
            start = 0
            for name, kind, shape, nbytes in layout.tensors:
                found[name] = value = empty(shape, kind)
                memory_of(value)[:] = memoryview(pages)[start : start + nbytes]
                start += nbytes
            return found
        assert self._file is not None
        start, layout = self._spilled.pop(number)
        self._free[_place_bytes(layout.nbytes)].append(start)
        for name, kind, shape, nbytes in layout.tensors:
            found[name] = value = empty(shape, kind)
            _read(self._file, memory_of(value), start)
            start += nbytes
        return found

    def expect(self, number: int) -> None:
        """Have the kernel read a set that is in the file, beside whatever is computed until it is taken."""
        if self._file and number in self._spilled and hasattr(os, "posix_fadvise"):
            offset, layout = self._spilled[number]
            os.posix_fadvise(self._file.fileno(), offset, layout.nbytes, os.POSIX_FADV_WILLNEED)

    def set_limit(self, nbytes: int) -> None:
        """Take at most this many bytes of memory from now on, as far as tensors can go to the file."""
        self.limit_bytes = max(0, nbytes)
        while self._held and self.held_bytes > self.limit_bytes:
            number, (pages, layout) = self._held.popitem()
            self._page_bytes -= len(pages)
            self._spilled[number] = self._place(layout), layout
            self._write(memoryview(pages)[: layout.nbytes], self._spilled[number][0])

    def close(self) -> None:
        """Drop everything."""
        self._held.clear()
        self._spilled.clear()
        if self._file:
            self._file.close()

    def _layout(self, values: Mapping[str, TensorValue]) -> _Layout:
        """The layout of a set, the same object for all that have it."""
        tensors = tuple((name, kind_of(value), shape_of(value), len(memory_of(value))) for name, value in values.items())
        layout = _Layout(tensors, sum(nbytes for *_, nbytes in tensors))
        return self._layouts.setdefault(layout, layout)

    def _place(self, layout: _Layout) -> int:
        """Where in the file a set may lie."""
        size = _place_bytes(layout.nbytes)
        if self._free[size]:
            return self._free[size].pop()
        self.file_bytes += size
        return self.file_bytes - size

    def _write(self, data: memoryview, offset: int) -> None:
        if self._file is None:
            self._file = _temporary_file()
        _write(self._file, data, offset)
        self.spilled_bytes += len(data)


def _pages(nbytes: int) -> int:
    """So many bytes in whole pages, one at least."""
    return max(1, -(-nbytes // _PAGE_BYTES)) * _PAGE_BYTES


def _place_bytes(nbytes: int) -> int:
    """The place in the file for so many bytes: of few sizes, at most an eighth larger, so that another set can have it."""
    step = max(_PAGE_BYTES, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def _temporary_file() -> IO[bytes]:
    """A file without a name; in ``/var/tmp``, which lies on storage where ``/tmp`` may lie in memory, unless TMPDIR says."""
    import tempfile  # most runs need none

    durable = "/var/tmp"
    folder = durable if "TMPDIR" not in os.environ and os.access(durable, os.W_OK) else None
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise OutputError(f"cannot make a temporary file: {error.strerror}; set TMPDIR to another folder") from None


def _write(file: IO[bytes], data: memoryview, offset: int) -> None:
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(file.fileno(), data[done:], offset + done)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "free some space, set TMPDIR to another disk, or use a smaller --batch" if full else "use a smaller --batch"
        raise OutputError(f"cannot write a temporary file: {error.strerror}; {mend}") from None


def _read(file: IO[bytes], data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        count = os.preadv(file.fileno(), [data[done:]], offset + done)
        if not count:
            raise OutputError("a temporary file became shorter; use a smaller --batch")
        done += count
