"""Tensors come back unchanged, from memory or from the file, and the memory they take keeps to its limit."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.batch_schedule import TENSOR_SET_BYTES
from hyps.runtime.device.process_memory import storage_bytes_read
from hyps.runtime.errors import OutputError
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.execution.spill import TensorStore

SHAPES = [(3,), (2, 5), (), (4, 1, 2)]


@settings(deadline=None)
@given(
    limits=st.lists(st.integers(0, 40_000), min_size=1, max_size=4),
    kinds=st.lists(st.tuples(st.sampled_from(["f4", "f2", "i8", "?"]), st.sampled_from(SHAPES)), min_size=1, max_size=8),
)
def test_what_is_put_is_taken(limits: list[int], kinds: list[tuple[str, tuple[int, ...]]]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 2, shape).astype(kind) for kind, shape in kinds]
    store = TensorStore()
    for round_number, limit in enumerate(limits):
        for number, array in enumerate(arrays):
            store.set_limit(limit)
            store.put(number, {"as numpy": array, "of onnxruntime": ort.OrtValue.ortvalue_from_numpy(array.copy())})
            assert store.held_bytes <= max(limit, TENSOR_SET_BYTES * (number + 1))
        store.set_limit(limits[(round_number + 1) % len(limits)])
        assert store.held_bytes <= max(store.limit_bytes, TENSOR_SET_BYTES * len(arrays))
        for number, array in enumerate(arrays):
            store.expect(number)
            for value in store.take(number).values():
                found = to_numpy(value)
                assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert store.held_bytes == 0
    store.close()


def test_places_in_the_file_are_used_again() -> None:
    store = TensorStore()
    for _ in range(50):
        store.put(0, {"a": np.ones(1000, np.float32)})
        store.put(1, {"a": np.zeros(1000, np.float32)})
        store.take(0)
        store.take(1)
    assert store.spilled_bytes == 50 * 2 * 4000
    assert store.file_bytes == 2 * 4096
    store.close()


def test_what_is_expected_is_read_before_it_is_taken() -> None:
    array = np.random.default_rng(0).random(1 << 20)
    with closing(TensorStore()) as store:
        store.put(0, {"a": array})
        assert store._file
        os.fsync(store._file.fileno())
        os.posix_fadvise(store._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = storage_bytes_read()
        store.expect(0)
        expected = storage_bytes_read() - before
        np.testing.assert_array_equal(store.take(0)["a"], array)
        if storage_bytes_read() == before:
            pytest.skip("the temporary file lies in memory")
        assert expected >= 0.9 * array.nbytes  # the kernel may leave a little


def test_within_the_limit_there_is_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    store = TensorStore()
    store.set_limit(4096 + TENSOR_SET_BYTES)
    store.put(0, {"a": np.ones(1000, np.float32)})
    assert store.spilled_bytes == 0
    with pytest.raises(OutputError, match=r"cannot make a temporary file: .*; set TMPDIR to another folder"):
        store.put(1, {"a": np.ones(1, np.float32)})


def test_a_full_disk_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "pwrite", full)
    store = TensorStore()
    with pytest.raises(OutputError) as caught:
        store.put(0, {"a": np.ones(1000, np.float32)})
    store.close()
    assert str(caught.value) == (
        "cannot write a temporary file: No space left on device; free some space, set TMPDIR to another disk, or use a "
        "smaller --batch"
    )
