"""Read the rows of a table that a step's input names from the step's file, in place of a session that would hold the table.

The step is a Gather along the table's first axis (`hyps.runtime.bundle.records.files.RowsRecord`). Memory is the result, and
what `ROW_READ_BYTES` and `ROW_INDEX_BYTES` say. The kernel's file cache, which is not the process's memory, may hold rows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.files import ROW_READ_BYTES, RowsRecord
from hyps.runtime.errors import BundleError, InputError
from hyps.runtime.execution.session import empty, memory_of, numpy_knows, to_numpy
from hyps.runtime.execution.tensor import TensorValue

_HASHED_BYTES = ROW_READ_BYTES // 2
#: The most buffers that one call of preadv(2) fills on Linux.
_ROWS_A_CALL = 1024


class RowReader:
    """A table in a file, as a `hyps.runtime.execution.session.Session` that returns its rows.

    With ``verify`` the file is read once from start to end, a block at a time, and its sha256 compared. Raises
    `BundleError` for a file that was changed or cannot be read.
    """

    def __init__(self, bundle: Path, record: RowsRecord, *, verify: bool) -> None:
        self._path, self._table = bundle / record.path, record.table
        kind = STORAGE_TYPES[self._table.dtype]
        self._elements = np.dtype(kind.storage) if numpy_knows(self._table.dtype) else kind.onnx
        self._rows, self._shape = self._table.shape[0], self._table.shape[1:]
        self._row_bytes = int(np.prod(self._shape, dtype=np.int64)) * kind.item_bytes
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._file)
            if verify and self._sha256() != record.sha256:
                raise BundleError(f"{self._path} was changed: its sha256 is not the manifest's", "copy the bundle again")
            if hasattr(os, "posix_fadvise"):  # what follows a row is seldom needed
                os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)
        except OSError as error:
            raise self._unreadable(error) from None

    @property
    def run_s(self) -> float:
        """The seconds that the last run computed: none, because it copies rows."""
        return 0.0

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        """Return the rows at the indices that are the only input; negative ones count from the table's end.

        Raises `InputError` for an index outside of the table, as onnxruntime does.
        """
        ((name, value),) = inputs.items()
        indices = np.asarray(to_numpy(value))
        result = empty((*indices.shape, *self._shape), self._elements)
        if indices.size and self._row_bytes:
            rows = np.frombuffer(memory_of(result), np.uint8).reshape(indices.size, self._row_bytes)
            try:
                self._fill(rows, self._places(name, indices))
            except OSError as error:
                raise self._unreadable(error) from None
        return dict(zip(outputs, (result,), strict=True))

    def _places(self, name: str, indices: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of the rows at these indices, from 0."""
        places = indices.reshape(-1).astype(np.int64)
        for worst in (int(places.min()), int(places.max())):
            if not -self._rows <= worst < self._rows:
                raise InputError(
                    f"tensor {name!r} holds the index {worst}, and {self._table.name!r} has {self._rows:,} rows",
                    f"give indices from {-self._rows} to {self._rows - 1}",
                )
        places[places < 0] += self._rows
        return places

    def _fill(self, rows: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
        """Read every row once, neighbours together, and copy it to wherever else it is asked for."""
        distinct, first, inverse = np.unique(places, return_index=True, return_inverse=True)
        for start, stop in _runs(distinct):
            offset = self._table.offset + int(distinct[start]) * self._row_bytes
            self._read([memoryview(rows[place]) for place in first[start:stop].tolist()], offset)
        for place in np.flatnonzero(first[inverse] != np.arange(len(places))).tolist():
            rows[place] = rows[first[inverse[place]]]

    def _read(self, buffers: list[memoryview], offset: int) -> None:
        """Fill the buffers, one after the other, with the file's bytes from ``offset`` on."""
        while buffers:
            count = os.preadv(self._file, buffers, offset)
            if not count:
                raise BundleError(f"{self._path} became shorter", "copy the bundle again")
            offset += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = buffers[0][count:]

    def _sha256(self) -> str:
        digest, offset = hashlib.sha256(), 0
        block = memoryview(bytearray(_HASHED_BYTES))
        while count := os.preadv(self._file, [block], offset):
            digest.update(block[:count])
            offset += count
        return digest.hexdigest()

    def _unreadable(self, error: OSError) -> BundleError:
        return BundleError(f"cannot read {self._path}: {error.strerror}", "copy the bundle again")


def _runs(ascending: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each run of consecutive numbers, at most `_ROWS_A_CALL` together."""
    breaks = (np.flatnonzero(np.diff(ascending) != 1) + 1).tolist()
    for start, stop in itertools.pairwise([0, *breaks, len(ascending)]):
        for first in range(start, stop, _ROWS_A_CALL):
            yield first, min(stop, first + _ROWS_A_CALL)
