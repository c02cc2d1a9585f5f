"""Tensors that wait for a later step: in memory within a limit, beyond it in a temporary file."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import IO, NamedTuple

import numpy as np

from hyps.runtime.errors import OutputError
from hyps.runtime.sessions import Kind, Value, empty, kind_of, memory_of


class _Spilled(NamedTuple):
    offset: int
    nbytes: int
    shape: tuple[int, ...]
    kind: Kind


class TensorStore:
    """Sets of tensors by number. What does not fit into ``limit_bytes`` goes to a file without a name, made when needed."""

    def __init__(self) -> None:
        self.limit_bytes = 0
        self.spilled_bytes = 0
        self.held_bytes = 0
        self._sets: dict[int, dict[str, Value | _Spilled]] = {}
        self._file: IO[bytes] | None = None
        self.file_bytes = 0
        self._free: dict[int, list[int]] = defaultdict(list)

    def put(self, number: int, tensors: Mapping[str, Value]) -> None:
        """Keep ``tensors``; raises `OutputError` when the temporary file cannot be written."""
        self._sets[number] = kept = {}
        for name, value in tensors.items():
            nbytes = len(memory_of(value))
            fits = self.held_bytes + nbytes <= self.limit_bytes
            self.held_bytes += nbytes if fits else 0
            kept[name] = value if fits else self._spill(value)

    def take(self, number: int) -> dict[str, Value]:
        """Tensors that were kept, which are not kept any longer."""
        return {name: self._give(entry) for name, entry in self._sets.pop(number).items()}

    def set_limit(self, nbytes: int) -> None:
        """Keep at most this many bytes in memory from now on."""
        self.limit_bytes = max(0, nbytes)
        for tensors in self._sets.values():
            for name, entry in tensors.items():
                if self.held_bytes <= self.limit_bytes:
                    return
                if not isinstance(entry, _Spilled):
                    tensors[name] = spilled = self._spill(entry)
                    self.held_bytes -= spilled.nbytes

    def close(self) -> None:
        """Drop everything."""
        self._sets.clear()
        if self._file:
            self._file.close()

    def _spill(self, value: Value) -> _Spilled:
        if self._file is None:
            self._file = _temporary_file()
        data = memory_of(value)
        if self._free[len(data)]:
            offset = self._free[len(data)].pop()
        else:
            offset, self.file_bytes = self.file_bytes, self.file_bytes + len(data)
        _write(self._file, data, offset)
        self.spilled_bytes += len(data)
        shape = value.shape if isinstance(value, np.ndarray) else value.shape()
        return _Spilled(offset, len(data), tuple(shape), kind_of(value))

    def _give(self, entry: Value | _Spilled) -> Value:
        if not isinstance(entry, _Spilled):
            self.held_bytes -= len(memory_of(entry))
            return entry
        assert self._file is not None
        value = empty(entry.shape, entry.kind)
        self._free[entry.nbytes].append(entry.offset)
        _read(self._file, memory_of(value), entry.offset)
        return value


def _temporary_file() -> IO[bytes]:
    """A file without a name; in ``/var/tmp``, which lies on storage where ``/tmp`` may lie in memory, unless TMPDIR says."""
    import tempfile  # most runs need none

    durable = "/var/tmp"  # noqa: S108 (the file has no name)
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
