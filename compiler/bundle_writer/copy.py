"""Copy weights from file to file by reference and hash them on the way; memory is one block, whatever their size.

Each block is hashed and written while it is in the processor's cache. ``copy_file_range`` took longer, because the hash then
needs a pass of its own. A hole in the source (a range that stores nothing) is not read, and stays a hole in the copy.
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

from hyps.compiler.progress import Advance
from hyps.passes.weights import Combination, Weight, byte_plane
from hyps.runtime.bundle.manifest import FileRecord

COPY_BLOCK_BYTES = 1 << 20
#: Larger writes make the kernel fill larger pages, which a virtual machine's host hands out slowly: 4 times the system time.
WRITE_BYTES = 1 << 16
#: Blocks of weights that are added up are smaller: those of all weights and of the sum stay in a processor's cache.
_SUMMED_BYTES = 1 << 17
_ZEROS = memoryview(bytes(COPY_BLOCK_BYTES))


def hash_file(path: Path, stop: Event) -> str:
    """Return the sha256 of a file; setting ``stop`` ends the work early, and the result is then meaningless."""
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
    """Write a small file of the bundle at ``root`` and return its record."""
    (root / name).write_bytes(content)
    return FileRecord(path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_weights(root: Path, name: str, placed: Iterable[tuple[int, Weight]], advance: Advance) -> FileRecord:
    """Write a weights file, each weight at its offset and zeros between; ``advance`` counts the bytes written."""
    placed = tuple(placed)
    digest, end = hashlib.sha256(), 0
    with (root / name).open("wb", buffering=0) as target:
        target.truncate(max((offset + weight.nbytes for offset, weight in placed), default=0))
        for start, block, is_stored in weight_blocks(placed):
            digest.update(bytes(start - end))
            if is_stored:
                target.seek(start)
                _write_all(target, block)
            digest.update(block)
            advance(len(block))
            end = start + len(block)
    return FileRecord(path=name, size_bytes=end, sha256=digest.hexdigest())


def weight_blocks(placed: Iterable[tuple[int, Weight]]) -> Iterator[tuple[int, memoryview, bool]]:
    """Yield the bytes of weights in blocks: where each starts, the block, and whether its source stores it.

    A block is valid until the next one.
    """
    with ExitStack() as stack:
        sources: dict[str, BinaryIO] = {}

        def source(path: str) -> int:
            """Return the descriptor of a file, which is opened once."""
            if path not in sources:
                sources[path] = stack.enter_context(Path(path).open("rb", buffering=0))
            return sources[path].fileno()

        for start, weight in placed:
            for block, is_stored in _blocks(source, weight, COPY_BLOCK_BYTES):
                yield start, block, is_stored
                start += len(block)


def _write_all(target: BinaryIO, block: memoryview) -> None:
    written = 0
    while written < len(block):
        written += target.write(block[written : written + WRITE_BYTES])


def _combined(source: Callable[[str], int], combination: Combination) -> Iterator[tuple[memoryview, bool]]:
    """Yield the sum of weights times their coefficients, or a plane of it, in blocks, which are the same for all weights."""
    dtype = np.dtype(combination.dtype)
    first, *others = combination.coefficients
    total = product = np.empty(0)
    for blocks in zip(*(_blocks(source, part, _SUMMED_BYTES) for part in combination.parts), strict=True):
        if combination.plane is None and not any(is_stored for _, is_stored in blocks):
            yield blocks[0]
            continue
        values = [np.frombuffer(block, dtype) for block, _ in blocks]
        if total.size != values[0].size:
            total, product = np.empty(values[0].size), np.empty(values[0].size)
        np.multiply(values[0], first, out=total, dtype=np.float64)
        for coefficient, each in zip(others, values[1:], strict=True):
            if coefficient == 1:
                np.add(total, each, out=total)
            else:
                total += np.multiply(each, coefficient, out=product, dtype=np.float64)
        if combination.plane is None:
            yield memoryview(total.astype(dtype).tobytes()), True
        else:
            yield memoryview(byte_plane(total + combination.offset, combination.plane).tobytes()), True


def _blocks(source: Callable[[str], int], weight: Weight, block_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield the weight's bytes in blocks, and whether they are stored; a block is valid until the next one.

    ``source`` returns the descriptor of a file.
    """
    if weight.combination is not None:
        yield from _combined(source, weight.combination)
    elif weight.row_scale is not None:
        yield from _scaled(source(weight.path), weight, block_bytes)
    else:
        yield from _stored(source(weight.path), weight, block_bytes)


def _stored(source: int, weight: Weight, block_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield the bytes of a weight as they are in a file."""
    buffer = memoryview(bytearray(min(block_bytes, weight.nbytes)))
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
    """Return whether a range of a file is inside the file but stores nothing: it reads as zeros (lseek(2), SEEK_DATA)."""
    try:
        return os.lseek(source, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:  # nothing is stored from ``offset`` on, or ``offset`` is beyond the file's end
        return error.errno == errno.ENXIO and os.fstat(source).st_size >= offset + length


def _scaled(source: int, weight: Weight, block_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield a float32 weight, each row multiplied by its factor, in blocks of rows."""
    assert weight.row_scale is not None
    scale = np.frombuffer(weight.row_scale, "<f4")
    rows = max(1, block_bytes // weight.row_bytes)
    for start in range(0, weight.rows, rows):
        count = min(rows, weight.rows - start)
        buffer = bytearray(count * weight.row_bytes)
        part = replace(weight, offset=weight.offset + start * weight.stride_bytes, rows=count)
        filled = 0
        for offset, length in part.runs():
            _read_exactly(source, memoryview(buffer)[filled : filled + length], offset)
            filled += length
        block = np.frombuffer(buffer, "<f4").reshape(count, -1) * scale[start : start + count, None]
        yield memoryview(block).cast("B"), True


def _read_exactly(source: int, buffer: memoryview, offset: int) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.preadv(source, [buffer[filled:]], offset + filled)
        if not count:
            raise OSError(0, "a weights file became shorter while it was being read")
        filled += count
