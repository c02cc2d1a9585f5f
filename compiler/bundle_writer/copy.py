"""Copy weights from file to file by reference, hashing as the bytes pass; memory is one block, whatever the size.

A block that was read is hashed and written while it is in the processor's cache: ``copy_file_range``, which leaves the hash
a pass of its own, took longer. Where a file stores nothing (a hole), nothing is read, and the copy has a hole, too.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import BinaryIO

import numpy as np

from hyps.passes.weights import Weight
from hyps.runtime.bundle.manifest import FileRecord

COPY_BLOCK_BYTES = 1 << 20
#: Larger writes make the kernel fill larger pages, which a virtual machine's host hands out slowly: 4 times the system time.
WRITE_BYTES = 1 << 16
_ZEROS = memoryview(bytes(COPY_BLOCK_BYTES))

CopyProgress = Callable[[int], None]


def hash_file(path: Path, stop: Event) -> str:
    """The sha256 of a file; meaningless once ``stop`` is set, which ends it early."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(COPY_BLOCK_BYTES))
    with path.open("rb", buffering=0) as stream:
        source, offset = stream.fileno(), 0
        while not stop.is_set():
            hole = _is_hole(source, offset, COPY_BLOCK_BYTES)
            count = COPY_BLOCK_BYTES if hole else os.preadv(source, [block], offset)
            if not count:
                break
            digest.update((_ZEROS if hole else block)[:count])
            offset += count
    return digest.hexdigest()


def write_bytes(root: Path, name: str, content: bytes) -> FileRecord:
    """Write a small file of the bundle at ``root``."""
    (root / name).write_bytes(content)
    return FileRecord(path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_weights(root: Path, name: str, placed: Iterable[tuple[int, Weight]], progress: CopyProgress) -> FileRecord:
    """Write a weights file: each weight at its offset, zeros between; ``progress`` is told of bytes as they pass."""
    placed = tuple(placed)
    digest, end = hashlib.sha256(), 0
    with ExitStack() as stack:
        target = stack.enter_context((root / name).open("wb", buffering=0))
        target.truncate(max((offset + weight.nbytes for offset, weight in placed), default=0))
        sources: dict[str, BinaryIO] = {}
        for offset, weight in placed:
            if weight.path not in sources:
                sources[weight.path] = stack.enter_context(Path(weight.path).open("rb", buffering=0))
            digest.update(bytes(offset - end))
            target.seek(offset)
            for block, stored in _blocks(sources[weight.path].fileno(), weight):
                if stored:
                    _write_all(target, block)
                else:
                    target.seek(len(block), os.SEEK_CUR)
                digest.update(block)
                progress(len(block))
            end = offset + weight.nbytes
    return FileRecord(path=name, size_bytes=end, sha256=digest.hexdigest())


def _write_all(target: BinaryIO, block: memoryview) -> None:
    written = 0
    while written < len(block):
        written += target.write(block[written : written + WRITE_BYTES])


def _blocks(source: int, weight: Weight) -> Iterator[tuple[memoryview, bool]]:
    """The weight's bytes in blocks, and whether the source stores them; each block is only valid until the next."""
    if weight.row_scale is not None:
        yield from _scaled(source, weight)
        return
    buffer = memoryview(bytearray(min(COPY_BLOCK_BYTES, weight.nbytes)))
    filled = 0
    for offset, length in weight.runs():
        while length:
            if filled == len(buffer):
                yield buffer, True
                filled = 0
            count = min(length, len(buffer) - filled)
            if count == len(buffer) and _is_hole(source, offset, count):
                yield _ZEROS[:count], False
            else:
                _read_exactly(source, buffer[filled : filled + count], offset)
                filled += count
            offset, length = offset + count, length - count
    if filled:
        yield buffer[:filled], True


def _is_hole(source: int, offset: int, length: int) -> bool:
    """Whether a file is that long and stores nothing there, so that it reads as zeros (lseek(2), SEEK_DATA)."""
    try:
        return os.lseek(source, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:  # nothing is stored from there on, or that is beyond the file's end
        return error.errno == errno.ENXIO and os.fstat(source).st_size >= offset + length


def _scaled(source: int, weight: Weight) -> Iterator[tuple[memoryview, bool]]:
    """A float32 weight with each row multiplied by its factor, a block of rows at a time."""
    assert weight.row_scale is not None
    scale = np.frombuffer(weight.row_scale, "<f4")
    rows = max(1, COPY_BLOCK_BYTES // weight.row_bytes)
    for start in range(0, weight.rows, rows):
        count = min(rows, weight.rows - start)
        buffer = bytearray(count * weight.row_bytes)
        part = replace(weight, offset=weight.offset + start * weight.stride_bytes, rows=count)
        done = 0
        for offset, length in part.runs():
            _read_exactly(source, memoryview(buffer)[done : done + length], offset)
            done += length
        block = np.frombuffer(buffer, "<f4").reshape(count, -1) * scale[start : start + count, None]
        yield memoryview(block).cast("B"), True


def _read_exactly(source: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], offset + done)
        if not count:
            raise OSError(0, "a weights file became shorter while it was read")
        done += count
