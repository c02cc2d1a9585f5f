"""Write weights compressed, without loss, frame by frame; memory is a few frames, whatever the weights' size.

`hyps.runtime.bundle.compression` compresses a frame. One that does not shrink is stored as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from msgspec import UNSET

from hyps.compiler.bundle_writer.copy import weight_blocks
from hyps.compiler.progress import Advance
from hyps.passes.weights import REFERENCE_BYTES, Weight
from hyps.runtime.bundle.compression import compressed_frame, frame_compressor
from hyps.runtime.bundle.records.files import FRAME_BYTES, CompressedRecord, FrameRecord, WeightsRecord

#: A frame that would keep more than this part of its bytes is stored as it is: to decompress it would save too little.
_MOST_KEPT_PART = 0.97
_SUFFIX = ".zst"


class PlacedWeight(NamedTuple):
    """A weight, its first byte in the weights file, and the bytes of each of its elements."""

    offset: int
    weight: Weight
    item_bytes: int


def write_compressed_weights(root: Path, name: str, placed: Iterable[PlacedWeight], advance: Advance) -> WeightsRecord:
    """Write the compressed form of a weights file, or the file itself if that is no larger; return its record.

    ``advance`` counts the bytes of weights. The record names no tensors yet.
    """
    placed = tuple(placed)
    starts = {each.offset: each for each in placed}
    path = root / f"{name}{_SUFFIX}"
    with path.open("wb") as target:
        writer, end = _FrameWriter(target), 0
        for start, block, _ in weight_blocks((each.offset, each.weight) for each in placed):
            writer.add(memoryview(bytes(start - end)))
            if (begun := starts.get(start)) and (
                begun.weight.nbytes >= REFERENCE_BYTES or begun.item_bytes != writer.item_bytes
            ):
                writer.end_frame()
                writer.item_bytes = begun.item_bytes
            writer.add(block)
            advance(len(block))
            end = start + len(block)
        writer.end_frame()
        stored_bytes = target.tell()
    compressed = CompressedRecord(
        path=f"{name}{_SUFFIX}", size_bytes=stored_bytes, sha256=writer.stored.hexdigest(), frames=tuple(writer.frames)
    )
    is_smaller = stored_bytes < end
    if not is_smaller:  # every frame is stored as it is, so it is the weights file
        path.rename(root / name)
    return WeightsRecord(
        path=name,
        size_bytes=end,
        sha256=writer.plain.hexdigest(),
        tensors=(),
        compressed=compressed if is_smaller else UNSET,
    )


class _FrameWriter:
    """A compressed file that is being written: its frames so far, and the hashes of what it holds and of what it is."""

    def __init__(self, target: BinaryIO) -> None:
        self.frames: list[FrameRecord] = []
        self.plain, self.stored = hashlib.sha256(), hashlib.sha256()
        self.item_bytes = 1
        self._target = target
        self._compressor = frame_compressor()
        self._frame = memoryview(bytearray(FRAME_BYTES))
        self._filled = 0

    def add(self, block: memoryview) -> None:
        """Take the bytes that follow."""
        self.plain.update(block)
        while block:
            count = min(len(block), FRAME_BYTES - self._filled)
            self._frame[self._filled : self._filled + count] = block[:count]
            self._filled += count
            block = block[count:]
            if self._filled == FRAME_BYTES:
                self.end_frame()

    def end_frame(self) -> None:
        """Write the bytes that were taken since the last frame as one."""
        if not self._filled:
            return
        plain = bytes(self._frame[: self._filled])
        compressed = compressed_frame(self._compressor, plain, self.item_bytes)
        stored = compressed if len(compressed) <= _MOST_KEPT_PART * len(plain) else plain
        self._target.write(stored)
        self.stored.update(stored)
        self.frames.append(FrameRecord(len(plain), len(stored), self.item_bytes))
        self._filled = 0
