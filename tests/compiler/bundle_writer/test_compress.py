"""Write compressed weights: what is decompressed is what was there, and no file is larger than the plain one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyps.compiler.bundle_writer.compress import PlacedWeight, write_compressed_weights
from hyps.compiler.bundle_writer.copy import write_weights
from hyps.passes.weights import Weight
from hyps.runtime.bundle.records.files import FRAME_BYTES, CompressedRecord, WeightsRecord
from hyps.runtime.execution.frame_decoder import FrameDecoder


def random(count: int, dtype: str) -> Any:
    """Return numbers as in trained weights; bfloat16 are the upper halves of float32, in numpy's uint16."""
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(dtype)


def noise(nbytes: int) -> Any:
    return np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)


def placed(folder: Path, arrays: Sequence[Any]) -> list[PlacedWeight]:
    """Write a source with all arrays; return them as weights at multiples of 64 KiB, small ones at multiples of 64."""
    path = folder / "source"
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    found, source, end = [], 0, 0
    for array in arrays:
        unit = 65536 if array.nbytes >= 65536 else 64
        offset = -(-end // unit) * unit
        weight = Weight(path=str(path), offset=source, row_bytes=array.nbytes)
        found.append(PlacedWeight(offset, weight, array.itemsize))
        source, end = source + array.nbytes, offset + array.nbytes
    return found


def decompressed(path: Path, record: CompressedRecord) -> bytes:
    decoder, content = FrameDecoder(), b""
    with path.open("rb") as stream:
        for frame in record.frames:
            target = bytearray(stream.read(frame.stored_bytes).ljust(frame.plain_bytes, b"\0"))
            if frame.stored_bytes < frame.plain_bytes:
                decoder.stored[: frame.stored_bytes] = target[: frame.stored_bytes]
                decoder.decode(frame.stored_bytes, frame.item_bytes, memoryview(target))
            content += target
        assert not stream.read()
    return content


CASES: dict[str, tuple[list[Any], float]] = {
    "float32": ([random(300_001, "float32")], 0.84),
    "bfloat16": ([random(300_001, "bfloat16")], 0.7),
    "float16": ([random(300_001, "float16")], 0.86),
    "float64": ([random(100_001, "float64")], 0.92),
    "int8, few values": ([noise(300_000) // 32], 0.4),
    "zeros": ([np.zeros(300_000, np.float32)], 0.01),
    "less than a frame": ([random(20_000, "float32")], 0.84),
    "exactly two frames": ([random(FRAME_BYTES // 2, "float32")], 0.84),
    "one element": ([np.zeros(1, np.float32)], 1.0),
    "noise, and what shrinks": ([noise(300_000), random(300_000, "float32")], 0.9),
    "small ones together": ([random(99, dtype) for dtype in ("float32", "float32", "float64", "float16")], 1.0),
    "small ones after large ones": ([random(70_000, "float32"), noise(77), random(99, "float64"), noise(1)], 0.86),
}


@pytest.mark.parametrize(("arrays", "most"), CASES.values(), ids=CASES)
def test_round_trip(arrays: list[Any], most: float, tmp_path: Path) -> None:
    weights, told = placed(tmp_path, arrays), list[int]()
    (tmp_path / "partitions").mkdir()
    record = write_compressed_weights(tmp_path, "partitions/w", weights, told.append)
    plain = write_weights(tmp_path, "plain", [(each.offset, each.weight) for each in weights], lambda count: None)
    assert sum(told) == sum(array.nbytes for array in arrays)
    assert (record.path, record.size_bytes, record.sha256) == ("partitions/w", plain.size_bytes, plain.sha256)
    check_stored(tmp_path, record, (tmp_path / "plain").read_bytes())
    assert record.stored.size_bytes <= most * record.size_bytes


def check_stored(folder: Path, record: WeightsRecord, plain: bytes) -> None:
    """Check that the bundle has one file, of the record's size and sha256, and that the plain bytes come out of it."""
    (path,) = (folder / "partitions").iterdir()
    stored = path.read_bytes()
    assert f"partitions/{path.name}" == record.stored.path
    assert (len(stored), hashlib.sha256(stored).hexdigest()) == (record.stored.size_bytes, record.stored.sha256)
    assert (decompressed(path, record.compressed) if record.compressed else stored) == plain
    for frame in record.compressed.frames if record.compressed else ():
        assert frame.stored_bytes <= frame.plain_bytes <= FRAME_BYTES
        assert not frame.plain_bytes % frame.item_bytes


@pytest.mark.parametrize("arrays", [[noise(300_000)], [noise(70_000), noise(100)]], ids=["one", "two"])
def test_what_does_not_shrink_is_the_plain_file(arrays: list[Any], tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    record = write_compressed_weights(tmp_path, "partitions/w", placed(tmp_path, arrays), lambda count: None)
    assert not record.compressed
    assert [path.name for path in (tmp_path / "partitions").iterdir()] == ["w"]


def test_a_weight_that_does_not_shrink_is_stored_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    arrays = [random(100_000, "float32"), noise(65_536)]
    record = write_compressed_weights(tmp_path, "partitions/w", placed(tmp_path, arrays), lambda count: None)
    assert record.compressed
    last = record.compressed.frames[-1]
    assert (last.plain_bytes, last.stored_bytes) == (65_536, 65_536)
