"""Keep tensors that wait for a later step: in memory within a limit, beyond it in a temporary file."""

from __future__ import annotations

import errno
import mmap
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import IO, NamedTuple

from hyps.runtime.bundle.batch_schedule import TENSOR_SET_BYTES
from hyps.runtime.errors import OutputError
from hyps.runtime.execution.session import ElementType, element_type, empty, memory_of
from hyps.runtime.execution.tensor import TensorValue, shape_of

_PAGE_BYTES = mmap.PAGESIZE


class _TensorLayout(NamedTuple):
    """One tensor of a set."""

    name: str
    elements: ElementType
    shape: tuple[int, ...]
    nbytes: int


class _SetLayout(NamedTuple):
    """The tensors of a set, stored one after the other, and their bytes together."""

    tensors: tuple[_TensorLayout, ...]
    nbytes: int


def copied(value: TensorValue) -> TensorValue:
    """Return a value of the same type in memory of its own."""
    copy = empty(shape_of(value), element_type(value))
    memory_of(copy)[:] = memory_of(value)
    return copy


class TensorStore:
    """Sets of tensors by number. A set that does not fit into ``limit_bytes`` is spilled to a temporary file without a name.

    A set in memory has pages of its own. In malloc's heap, dozens of tensors that come and go would leave holes, and the
    resident size would be unknown. Sets are taken in the order in which they were put: the set put last is needed last, so
    it is spilled first.
    """

    def __init__(self) -> None:
        self.limit_bytes = 0
        self.spilled_bytes = 0
        self.file_bytes = 0
        self._page_bytes = 0
        self._held: dict[int, tuple[mmap.mmap, _SetLayout]] = {}
        self._spilled: dict[int, tuple[int, _SetLayout]] = {}
        self._layouts: dict[_SetLayout, _SetLayout] = {}
        self._file: IO[bytes] | None = None
        self._free: dict[int, list[int]] = defaultdict(list)

    @property
    def held_bytes(self) -> int:
        """The memory that the sets take."""
        return self._page_bytes + TENSOR_SET_BYTES * (len(self._held) + len(self._spilled))

    def put(self, number: int, tensors: Mapping[str, TensorValue]) -> None:
        """Keep copies of ``tensors``. Raises `OutputError` when the temporary file cannot be written."""
        layout = self._layout(tensors)
        if self.held_bytes + TENSOR_SET_BYTES + _whole_pages(layout.nbytes) <= self.limit_bytes:
            pages = mmap.mmap(-1, _whole_pages(layout.nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            offset = 0
            for value in tensors.values():
                data = memory_of(value)
                pages[offset : offset + len(data)] = data
                offset += len(data)
            self._held[number] = pages, layout
            self._page_bytes += len(pages)
        else:
            offset = self._allocate(layout)
            self._spilled[number] = offset, layout
            for value in tensors.values():
                self._write(data := memory_of(value), offset)
                offset += len(data)
            self.set_limit(self.limit_bytes)

    def take(self, number: int) -> dict[str, TensorValue]:
        """Return a set that was put, and keep it no longer."""
        values: dict[str, TensorValue] = {}
        if number in self._held:
            pages, layout = self._held.pop(number)
            self._page_bytes -= len(pages)
            start = 0
            for tensor in layout.tensors:
                values[tensor.name] = value = empty(tensor.shape, tensor.elements)
                memory_of(value)[:] = memoryview(pages)[start : start + tensor.nbytes]
                start += tensor.nbytes
            return values
        assert self._file is not None
        start, layout = self._spilled.pop(number)
        self._free[_slot_bytes(layout.nbytes)].append(start)
        for tensor in layout.tensors:
            values[tensor.name] = value = empty(tensor.shape, tensor.elements)
            _read(self._file, memory_of(value), start)
            start += tensor.nbytes
        return values

    def expect(self, number: int) -> None:
        """Have the kernel read a set that is in the file while the program computes, until the set is taken."""
        if self._file and number in self._spilled and hasattr(os, "posix_fadvise"):
            offset, layout = self._spilled[number]
            os.posix_fadvise(self._file.fileno(), offset, layout.nbytes, os.POSIX_FADV_WILLNEED)

    def set_limit(self, nbytes: int) -> None:
        """Take at most this many bytes of memory from now on, as far as sets can be spilled."""
        self.limit_bytes = max(0, nbytes)
        while self._held and self.held_bytes > self.limit_bytes:
            number, (pages, layout) = self._held.popitem()
            self._page_bytes -= len(pages)
            self._spilled[number] = self._allocate(layout), layout
            self._write(memoryview(pages)[: layout.nbytes], self._spilled[number][0])

    def close(self) -> None:
        """Drop everything."""
        self._held.clear()
        self._spilled.clear()
        if self._file:
            self._file.close()

    def _layout(self, values: Mapping[str, TensorValue]) -> _SetLayout:
        """Return the layout of a set; sets of the same layout share one object."""
        tensors = tuple(
            _TensorLayout(name, element_type(value), shape_of(value), len(memory_of(value)))
            for name, value in values.items()
        )
        layout = _SetLayout(tensors, sum(tensor.nbytes for tensor in tensors))
        return self._layouts.setdefault(layout, layout)

    def _allocate(self, layout: _SetLayout) -> int:
        """Return the start of a free slot in the file for a set."""
        size = _slot_bytes(layout.nbytes)
        if self._free[size]:
            return self._free[size].pop()
        self.file_bytes += size
        return self.file_bytes - size

    def _write(self, data: memoryview, offset: int) -> None:
        if self._file is None:
            self._file = _temporary_file()
        _write(self._file, data, offset)
        self.spilled_bytes += len(data)


def _whole_pages(nbytes: int) -> int:
    """Return ``nbytes`` rounded up to whole pages, one at least."""
    return max(1, -(-nbytes // _PAGE_BYTES)) * _PAGE_BYTES


def _slot_bytes(nbytes: int) -> int:
    """Return the size of a set's slot in the file: one of few sizes, at most an eighth larger, so that slots are reused."""
    step = max(_PAGE_BYTES, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def _temporary_file() -> IO[bytes]:
    """Open a file without a name in TMPDIR, else in ``/var/tmp``: that is on storage, where ``/tmp`` may be in memory."""
    import tempfile  # most runs need none

    durable = "/var/tmp"  # noqa: S108
    folder = durable if "TMPDIR" not in os.environ and os.access(durable, os.W_OK) else None
    try:
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise OutputError(f"cannot make a temporary file: {error.strerror}", "set TMPDIR to another folder") from None


def _write(file: IO[bytes], data: memoryview, offset: int) -> None:
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(file.fileno(), data[done:], offset + done)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space, set TMPDIR to another disk, or use a smaller --batch" if full else "use a smaller --batch"
        raise OutputError(f"cannot write a temporary file: {error.strerror}", remedy) from None


def _read(file: IO[bytes], data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        count = os.preadv(file.fileno(), [data[done:]], offset + done)
        if not count:
            raise OutputError("a temporary file became shorter", "use a smaller --batch")
        done += count
