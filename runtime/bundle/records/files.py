"""The manifest's records of files: models, weights, compressed weights, and tables that are read by rows."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.fields import Count, Extents, FilePath, Name, Record, Sha256

#: The most that reading rows (`RowsRecord`) takes besides indices and rows, and what it takes for each index.
ROW_READ_BYTES: Final = 1 << 19
ROW_INDEX_BYTES: Final = 64
#: The most bytes of a frame of compressed weights (`FrameRecord`): two such buffers stay in a processor's cache.
FRAME_BYTES: Final = 1 << 18
FrameBytes = Annotated[int, Meta(gt=0, le=FRAME_BYTES)]


class FileRecord(Record, frozen=True, kw_only=True):
    """A file of the bundle."""

    path: FilePath
    size_bytes: Count
    sha256: Sha256


class WeightRecord(Record, frozen=True, kw_only=True):
    """A weight in a weights file: the initializer's name, a type of `STORAGE_TYPES`, its shape, and its first byte."""

    name: Name
    dtype: str
    shape: Extents
    offset: Count

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class SmallWeightRecord(Record, frozen=True, kw_only=True):
    """A weight stored in a step's model, and its bytes (base64), to be given to the session of another step."""

    name: Name
    dtype: str
    shape: Extents
    data: bytes


class FrameRecord(Record, frozen=True, array_like=True, gc=False):
    """A run of a weights file's bytes, which lies in a compressed file at the end of the frames before it.

    It is ``plain_bytes`` long. If ``stored_bytes`` are as many, it is stored as it is. Else it is one zstd frame of
    ``item_bytes`` planes, one after the other: the first bytes of all items, then the second bytes, and so on.
    """

    plain_bytes: FrameBytes
    stored_bytes: FrameBytes
    item_bytes: Annotated[int, Meta(ge=1, le=8)]


class CompressedRecord(FileRecord, frozen=True, kw_only=True):
    """The file that a bundle has instead of a weights file, and the frames in which it holds that file's bytes."""

    frames: Annotated[tuple[FrameRecord, ...], Meta(min_length=1)]

    def bytes_from(self, start: int) -> int:
        """Return the bytes of the frames that hold the weights file's bytes from ``start`` on."""
        ends = itertools.accumulate(frame.plain_bytes for frame in self.frames)
        return sum(frame.stored_bytes for frame, end in zip(self.frames, ends, strict=True) if start < end)


class WeightsRecord(FileRecord, frozen=True, kw_only=True):
    """The file of a step's large weights. onnxruntime itself reads those whose type is not listed in `STORAGE_TYPES`.

    With ``compressed`` the bundle has that file instead. Size and sha256 are still those of the weights, decompressed.
    """

    tensors: tuple[WeightRecord, ...]
    compressed: CompressedRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def stored(self) -> FileRecord:
        """The file that the bundle has."""
        return self.compressed or self


class RowsRecord(FileRecord, frozen=True, kw_only=True):
    """A file with a ``table``. A step that has one runs no session: it is a Gather along the table's first axis.

    The runtime reads the rows that the step's only input names from the file, into the step's only output.
    """

    table: WeightRecord
