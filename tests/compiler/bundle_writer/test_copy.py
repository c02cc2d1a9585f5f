"""Copy referenced weights, and check the bytes and the hashes of the files."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from hyps.compiler.bundle_writer import copy as copying
from hyps.compiler.bundle_writer.copy import hash_file, write_bytes, write_weights
from hyps.passes.weights import Weight
from tests.compiler.onnxes import Array

OFFSET = 13


@pytest.fixture
def matrix() -> Array:
    """Return a matrix of 40 rows of 30 different values."""
    return np.arange(1_200, dtype=np.float32).reshape(40, 30)


@pytest.fixture
def source(matrix: Array, tmp_path: Path) -> Weight:
    """Save the matrix in a larger file and return it as a weight."""
    path = tmp_path / "source"
    path.write_bytes(b"\xaa" * OFFSET + matrix.tobytes() + b"\xbb" * 100)
    return Weight(path=str(path), offset=OFFSET, row_bytes=matrix.nbytes)


@pytest.fixture(params=[1 << 20, 1_000, 120, 7], ids=lambda size: f"blocks of {size}")
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with blocks larger than the weight, of a part of it, of a row, and of less than two elements."""
    monkeypatch.setattr(copying, "COPY_BLOCK_BYTES", request.param)


def written(folder: Path, *placed: tuple[int, Weight]) -> bytes:
    """Write these weights, check the file's record, and return the file's bytes."""
    counts: list[int] = []
    record = write_weights(folder, "weights", placed, counts.append)
    content = (folder / "weights").read_bytes()
    assert record.path == "weights"
    assert record.size_bytes == len(content)
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert sum(counts) == sum(weight.nbytes for _, weight in placed)
    return content


@pytest.mark.usefixtures("blocks")
class TestWeights:
    """Copies are compared with numpy's slices and products."""

    def test_whole(self, source: Weight, matrix: Array, tmp_path: Path) -> None:
        assert written(tmp_path, (0, source)) == matrix.tobytes()

    @pytest.mark.parametrize(("start", "stop"), [(0, 40), (0, 1), (7, 23), (39, 40)])
    def test_rows(self, start: int, stop: int, source: Weight, matrix: Array, tmp_path: Path) -> None:
        assert written(tmp_path, (0, source.slice(0, start, stop, (40, 30)))) == matrix[start:stop].tobytes()

    @pytest.mark.parametrize(("start", "stop"), [(0, 30), (0, 1), (8, 16), (29, 30)])
    def test_columns(self, start: int, stop: int, source: Weight, matrix: Array, tmp_path: Path) -> None:
        assert written(tmp_path, (0, source.slice(1, start, stop, (40, 30)))) == matrix[:, start:stop].tobytes()

    def test_scaled(self, source: Weight, matrix: Array, tmp_path: Path) -> None:
        scale = np.linspace(-2, 3, 40, dtype=np.float32)
        scaled = source.scale_rows(scale.tobytes(), (40, 30))
        assert written(tmp_path, (0, scaled)) == (matrix * scale[:, None]).tobytes()

    def test_gaps_hold_zeros(self, source: Weight, matrix: Array, tmp_path: Path) -> None:
        """A file that existed before is overwritten."""
        (tmp_path / "weights").write_bytes(b"\xff" * 400_000)
        columns = source.slice(1, 3, 5, (40, 30))
        content = written(tmp_path, (0, source), (65_536, columns), (3 * 65_536, source))
        expected = bytearray(3 * 65_536 + matrix.nbytes)
        expected[: matrix.nbytes] = expected[3 * 65_536 :] = matrix.tobytes()
        expected[65_536 : 65_536 + columns.nbytes] = matrix[:, 3:5].tobytes()
        assert content == bytes(expected)

    def test_several_sources(self, source: Weight, matrix: Array, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_bytes(bytes(range(200)))
        second = Weight(path=str(other), offset=100, row_bytes=50)
        content = written(tmp_path, (0, source), (matrix.nbytes, second), (matrix.nbytes + 50, source))
        assert content == matrix.tobytes() + bytes(range(100, 150)) + matrix.tobytes()


@pytest.mark.parametrize("shorter", [1, 4_000])
def test_source_that_became_shorter(shorter: int, source: Weight, tmp_path: Path) -> None:
    path = Path(source.path)
    path.write_bytes(path.read_bytes()[: -100 - shorter])
    with pytest.raises(OSError, match="became shorter"):
        write_weights(tmp_path, "weights", [(0, source)], lambda count: None)


def test_writes_that_take_only_a_part(
    source: Weight, matrix: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write(2) may write less than asked, for example on a nearly full disk."""

    class Reluctant(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:1_000])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Reluctant(path, mode))
    record = write_weights(tmp_path, "weights", [(0, source)], lambda count: None)
    monkeypatch.undo()
    assert (tmp_path / "weights").read_bytes() == matrix.tobytes()
    assert record.sha256 == hashlib.sha256(matrix.tobytes()).hexdigest()


def test_large_weight_in_real_blocks(tmp_path: Path) -> None:
    """A weight of 2.5 blocks is copied whole, in columns, and scaled."""
    values = np.random.default_rng(0).standard_normal((640, 1_024), np.float32)
    (tmp_path / "source").write_bytes(values.tobytes())
    weight = Weight(path=str(tmp_path / "source"), offset=0, row_bytes=values.nbytes)
    scale = np.random.default_rng(1).standard_normal(640, np.float32)
    assert values.nbytes == 2.5 * copying.COPY_BLOCK_BYTES
    assert written(tmp_path, (0, weight)) == values.tobytes()
    assert written(tmp_path, (0, weight.slice(1, 8, 1_016, (640, 1_024)))) == values[:, 8:1_016].tobytes()
    assert written(tmp_path, (0, weight.scale_rows(scale.tobytes(), (640, 1_024)))) == (values * scale[:, None]).tobytes()


def test_write_bytes(tmp_path: Path) -> None:
    record = write_bytes(tmp_path, "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (record.path, record.size_bytes, record.sha256) == ("file", 7, hashlib.sha256(b"content").hexdigest())


@pytest.mark.parametrize("content", [np.random.default_rng(0).bytes(copying.COPY_BLOCK_BYTES * 2 + 5), b""], ids=len)
def test_hash_of_a_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert hash_file(path, Event()) == hashlib.sha256(content).hexdigest()


def test_hashing_stops_when_told(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    stop = Event()
    stop.set()
    hash_file(path, stop)


class TestHoles:
    """Holes of a sparse file stay holes in the copy, and are hashed as zeros."""

    BLOCKS = 6

    @pytest.fixture
    def sparse(self, tmp_path: Path) -> Weight:
        """Write a file of six blocks, of which the second and the last hold values."""
        path = tmp_path / "sparse"
        with path.open("wb") as stream:
            for block in (1, 5):
                stream.seek(block * copying.COPY_BLOCK_BYTES)
                stream.write(np.random.default_rng(block).bytes(1_000))
            stream.truncate(self.BLOCKS * copying.COPY_BLOCK_BYTES)
        return Weight(path=str(path), offset=0, row_bytes=self.BLOCKS * copying.COPY_BLOCK_BYTES)

    @pytest.mark.parametrize("shift", [0, 1, 4_096, 500_000])
    def test_copied(self, shift: int, sparse: Weight, tmp_path: Path) -> None:
        weight = Weight(path=sparse.path, offset=shift, row_bytes=sparse.nbytes - shift)
        assert written(tmp_path, (0, weight)) == Path(sparse.path).read_bytes()[shift:]
        assert 512 * (tmp_path / "weights").stat().st_blocks <= 4 * copying.COPY_BLOCK_BYTES

    def test_at_the_end(self, sparse: Weight, tmp_path: Path) -> None:
        """The copy is as long as the weight, even if it ends in a hole."""
        weight = Weight(path=sparse.path, offset=0, row_bytes=5 * copying.COPY_BLOCK_BYTES)
        assert written(tmp_path, (0, weight)) == Path(sparse.path).read_bytes()[: weight.nbytes]

    def test_between_weights(self, sparse: Weight, source: Weight, matrix: Array, tmp_path: Path) -> None:
        content = written(tmp_path, (0, source), (65_536, sparse), (65_536 + sparse.nbytes, source))
        assert content[65_536:-4_800] == Path(sparse.path).read_bytes()
        assert content[-4_800:] == content[:4_800] == matrix.tobytes()

    def test_hashed(self, sparse: Weight) -> None:
        path = Path(sparse.path)
        assert hash_file(path, Event()) == hashlib.sha256(path.read_bytes()).hexdigest()
        with path.open("ab") as stream:
            stream.truncate(sparse.nbytes + 3 * copying.COPY_BLOCK_BYTES + 5)
        assert hash_file(path, Event()) == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_file_that_became_shorter(self, sparse: Weight, tmp_path: Path) -> None:
        """A range beyond the file's end is not a hole."""
        with Path(sparse.path).open("r+b") as stream:
            stream.truncate(4 * copying.COPY_BLOCK_BYTES)
        with pytest.raises(OSError, match="became shorter"):
            write_weights(tmp_path, "weights", [(0, sparse)], lambda count: None)

    def test_file_system_without_holes(self, sparse: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: int) -> int:
            raise OSError(errno.EINVAL, "no such whence")

        monkeypatch.setattr(os, "lseek", refuse)
        record = write_weights(tmp_path, "weights", [(0, sparse)], lambda count: None)
        monkeypatch.undo()
        assert record.sha256 == hashlib.sha256(Path(sparse.path).read_bytes()).hexdigest()
        assert (tmp_path / "weights").read_bytes() == Path(sparse.path).read_bytes()
