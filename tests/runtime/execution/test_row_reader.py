"""Rows are read from a file as numpy would take them from memory; faults in the file are errors in one line."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.files import ROW_INDEX_BYTES, ROW_READ_BYTES, RowsRecord, WeightRecord
from hyps.runtime.errors import BundleError, InputError
from hyps.runtime.execution import row_reader
from hyps.runtime.execution.row_reader import RowReader
from hyps.runtime.execution.session import memory_of, to_ort
from hyps.runtime.execution.tensor import dtype_of, shape_of

ROWS, SHAPE = 500, (3, 2)
OFFSET = 192


def saved(folder: Path, dtype: str = "int32") -> tuple[RowsRecord, Any]:
    """Write a file with a table of random bytes after `OFFSET` others; return its record and the bytes of its rows."""
    kind = STORAGE_TYPES[dtype]
    row_bytes = int(np.prod(SHAPE)) * kind.item_bytes
    content = np.random.default_rng(0).integers(0, 2, OFFSET + ROWS * row_bytes + 64, np.uint8)
    (folder / "partitions").mkdir(exist_ok=True)
    (folder / "partitions/t.weights").write_bytes(content.tobytes())
    record = RowsRecord(
        path="partitions/t.weights",
        size_bytes=content.size,
        sha256=hashlib.sha256(content.tobytes()).hexdigest(),
        table=WeightRecord(name="t", dtype=dtype, shape=(ROWS, *SHAPE), offset=OFFSET),
    )
    return record, content[OFFSET:-64].reshape(ROWS, row_bytes)


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_every_type(dtype: str, tmp_path: Path) -> None:
    record, rows = saved(tmp_path, dtype)
    found = RowReader(tmp_path, record, verify=True).run(["y"], {"ids": np.array([[7, -1]])})["y"]
    assert (dtype_of(found), shape_of(found)) == (dtype, (1, 2, *SHAPE))
    assert bytes(memory_of(found)) == rows[[7, -1]].tobytes()


@settings(deadline=None)
@given(indices=st.lists(st.integers(-ROWS, ROWS - 1), max_size=40), together=st.integers(1, 5), as_ort=st.booleans())
def test_any_indices(indices: list[int], together: int, as_ort: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    record, rows = saved(folder)
    value = np.array(indices, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "_ROWS_A_CALL", together)
        reader = RowReader(folder, record, verify=False)
        found = reader.run(["y"], {"ids": to_ort(value) if as_ort and indices else value})["y"]
    assert shape_of(found) == (len(indices), *SHAPE)
    assert found.tobytes() == rows[value].tobytes()


def test_more_neighbours_than_one_call_takes(tmp_path: Path) -> None:
    record, rows = saved(tmp_path)
    indices = np.tile(np.arange(ROWS)[::-1], 5).astype(np.int32)
    found = RowReader(tmp_path, record, verify=True).run(["y"], {"ids": indices})["y"]
    assert found.tobytes() == rows[indices].tobytes()


def test_neighbours_are_read_together_and_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, rows = saved(tmp_path)
    reader = RowReader(tmp_path, record, verify=False)
    sizes: list[int] = []
    preadv = os.preadv

    def counted(file: int, buffers: list[memoryview], offset: int) -> int:
        sizes.append(len(buffers))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    indices = np.array([9, 3, 4, 9, 2, 4, 40])
    assert reader.run(["y"], {"ids": indices})["y"].tobytes() == rows[indices].tobytes()
    assert sizes == [3, 1, 1]


@pytest.mark.parametrize("repeated", [False, True])
def test_memory_is_what_the_plan_counts(repeated: bool, tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    indices = np.random.default_rng(0).integers(0, 1 if repeated else ROWS, 100_000)
    tracemalloc.start()
    try:
        found = RowReader(tmp_path, record, verify=True).run(["y"], {"ids": indices})["y"]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes - found.nbytes <= ROW_READ_BYTES + ROW_INDEX_BYTES * indices.size


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1])
def test_an_index_outside_of_the_table(index: int, tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    reader = RowReader(tmp_path, record, verify=True)
    with pytest.raises(InputError, match=rf"'ids' holds the index {index}, .* give indices from -{ROWS} to {ROWS - 1}"):
        reader.run(["y"], {"ids": np.array([0, index])})


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    with (tmp_path / record.path).open("r+b") as stream:
        stream.write(b"x")
    RowReader(tmp_path, record, verify=False)
    with pytest.raises(BundleError, match="was changed: its sha256 is not the manifest's"):
        RowReader(tmp_path, record, verify=True)


def test_a_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    reader = RowReader(tmp_path, record, verify=True)
    with (tmp_path / record.path).open("r+b") as stream:
        stream.truncate(OFFSET + 30)
    with pytest.raises(BundleError, match="became shorter"):
        reader.run(["y"], {"ids": np.array([1, 2])})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    (tmp_path / record.path).unlink()
    with pytest.raises(BundleError, match="cannot read"):
        RowReader(tmp_path, record, verify=False)
