"""Show a decoder only chosen parts of a file, and let it read no more than an allowance."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import BinaryIO

from hyps.runtime.errors import InputError


class FileParts(io.RawIOBase):
    """Some byte ranges of a file as one stream. While there is an allowance, reading more than it raises `InputError`.

    ``parts`` are (start, stop) pairs in the order of the file; neighbours are joined.
    """

    def __init__(self, base: BinaryIO, parts: Iterable[tuple[int, int]], *, allowance_bytes: int, refusal: str) -> None:
        super().__init__()
        self._base, self._refusal = base, refusal
        self._starts, self._stops = _joined(parts)
        sizes = (stop - start for start, stop in zip(self._starts, self._stops, strict=True))
        self._ends = [*accumulate(sizes)]
        self._at = 0
        self._left: int | None = allowance_bytes

    def lift_allowance(self) -> None:
        """Allow any number of bytes from now on."""
        self._left = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, which may lie after the end."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError("negative position")
        self._at = origin + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end. Raises `InputError` beyond the allowance."""
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if self._left is not None:
            if wanted > self._left:
                raise InputError(self._refusal)
            self._left -= wanted
        pieces = []
        while wanted:
            index = bisect_right(self._ends, self._at)
            before_end = self._ends[index] - self._at
            self._base.seek(self._stops[index] - before_end)
            piece = self._base.read(min(wanted, before_end))
            if not piece:
                break
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0


def _joined(parts: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    starts, stops = list[int](), list[int]()
    for start, stop in parts:
        if stops and start == stops[-1]:
            stops[-1] = stop
        elif stop > start:
            starts.append(start)
            stops.append(stop)
    return starts, stops
