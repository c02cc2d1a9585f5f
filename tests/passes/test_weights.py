"""A sliced or scaled reference, copied as the bundle writer copies it, is numpy's own slice or product."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto

from hyps.compiler.bundle_writer import copy as copying
from hyps.compiler.bundle_writer.copy import write_weights
from hyps.passes.weights import Model, Weight, placeholder, skeleton
from tests.passes.nets import Net

#: The offset of a weight in its file: any, as in an .onnx file.
OFFSET = 37
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def stored(folder: Path, values: NDArray[Any]) -> Weight:
    """Return a reference to ``values`` in a file with other bytes before and after them."""
    path = folder / "source"
    path.write_bytes(bytes(range(OFFSET)) + values.tobytes() + b"behind")
    return Weight(path=str(path), offset=OFFSET, row_bytes=values.nbytes)


def copied(folder: Path, weight: Weight) -> bytes:
    """Return the weight's bytes as the bundle writer copies them; check what it records of the file."""
    record = write_weights(folder, "copy", [(0, weight)], lambda count: None)
    content = (folder / "copy").read_bytes()
    assert record.size_bytes == len(content) == weight.nbytes
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    return content


def bounds(data: st.DataObject, size: int) -> tuple[int, int]:
    """Draw a range of at least one of ``size`` rows or columns."""
    start = data.draw(st.integers(0, size - 1), "start")
    return start, data.draw(st.integers(start + 1, size), "stop")


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES, st.sampled_from(["float32", "float16", "int8", "float64"]))
def test_slices_are_numpys(data: st.DataObject, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        weight = stored(Path(folder), values)
        axis = data.draw(st.integers(0, len(shape) - 1), "axis")
        start, stop = bounds(data, shape[axis])
        expected = values[(slice(None),) * axis + (slice(start, stop),)]
        assert copied(Path(folder), weight.slice(axis, start, stop, shape)) == expected.tobytes()


@settings(max_examples=40, deadline=None)
@given(SHAPES)
def test_scaled_rows_are_numpys(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(shape).astype(np.float32)
    scale = random.standard_normal(shape[0]).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        scaled = stored(Path(folder), values).scale_rows(scale.tobytes(), shape)
        expected = values * scale.reshape(-1, *[1] * (len(shape) - 1))
        assert scaled.nbytes == values.nbytes
        assert copied(Path(folder), scaled) == expected.tobytes()


@pytest.mark.parametrize("block", [4, 20, 64, 1 << 20], ids=lambda block: f"blocks of {block}")
def test_block_size_does_not_matter(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and runs that end in the middle of a block are copied whole."""
    monkeypatch.setattr(copying, "COPY_BLOCK_BYTES", block)
    values = np.arange(7 * 9, dtype=np.float32).reshape(7, 9)
    weight = stored(tmp_path, values)
    scale = np.arange(7, dtype=np.float32)
    assert copied(tmp_path, weight) == values.tobytes()
    assert copied(tmp_path, weight.slice(1, 2, 7, values.shape)) == values[:, 2:7].tobytes()
    assert copied(tmp_path, weight.scale_rows(scale.tobytes(), values.shape)) == (values * scale[:, None]).tobytes()


def test_weights_lie_at_their_offsets_with_zeros_between(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    weight = stored(tmp_path, values)
    told: list[int] = []
    placed = [(0, weight.slice(0, 0, 1, (3, 4))), (64, weight.slice(1, 3, 4, (3, 4)))]
    record = write_weights(tmp_path, "copy", placed, told.append)
    content = (tmp_path / "copy").read_bytes()
    assert content == values[0].tobytes() + bytes(48) + values[:, 3].tobytes()
    assert (record.size_bytes, record.sha256) == (76, hashlib.sha256(content).hexdigest())
    assert sum(told) == 16 + 12


def test_source_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    weight = stored(tmp_path, np.zeros(100, np.float32))
    Path(weight.path).write_bytes(bytes(OFFSET + 399))
    with pytest.raises(OSError, match="became shorter"):
        copied(tmp_path, weight)


def test_rows_of_rows_and_columns_of_rows(tmp_path: Path) -> None:
    """A slice of rows is contiguous and can be sliced again."""
    values = np.arange(48, dtype=np.float32).reshape(6, 8)
    rows = stored(tmp_path, values).slice(0, 1, 5, (6, 8))
    assert copied(tmp_path, rows.slice(0, 1, 3, (4, 8))) == values[2:4].tobytes()
    assert copied(tmp_path, rows.slice(1, 3, 6, (4, 8))) == values[1:5, 3:6].tobytes()


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES)
def test_slices_of_scaled_rows_are_numpys(data: st.DataObject, shape: tuple[int, ...]) -> None:
    """A slice of rows keeps their factors; a slice along the next axis keeps all."""
    random = np.random.default_rng(0)
    values = random.standard_normal(shape).astype(np.float32)
    scale = random.standard_normal(shape[0]).astype(np.float32)
    axis = data.draw(st.integers(0, min(1, len(shape) - 1)), "axis")
    start, stop = bounds(data, shape[axis])
    with tempfile.TemporaryDirectory() as folder:
        scaled = stored(Path(folder), values).scale_rows(scale.tobytes(), shape)
        expected = (values * scale.reshape(-1, *[1] * (len(shape) - 1)))[(slice(None),) * axis + (slice(start, stop),)]
        assert copied(Path(folder), scaled.slice(axis, start, stop, shape)) == expected.tobytes()


def test_a_scaled_weight_is_not_scaled_again_or_sliced_along_other_axes(tmp_path: Path) -> None:
    shape, scale = (4, 2, 3), np.ones(4, np.float32).tobytes()
    scaled = stored(tmp_path, np.ones(shape, np.float32)).scale_rows(scale, shape)
    with pytest.raises(ValueError, match="along its first two axes"):
        scaled.slice(2, 0, 1, shape)
    with pytest.raises(ValueError, match="along its first two axes"):
        scaled.slice(1, 0, 1, shape).slice(0, 0, 1, (4, 1, 3))
    with pytest.raises(ValueError, match="only a contiguous, unscaled weight"):
        scaled.scale_rows(scale, shape)


def test_columns_are_not_sliced_again(tmp_path: Path) -> None:
    columns = stored(tmp_path, np.ones((4, 6), np.float32)).slice(1, 1, 3, (4, 6))
    with pytest.raises(ValueError, match="only a contiguous"):
        columns.slice(1, 0, 1, (4, 2))


def test_contiguous_runs_are_one_run() -> None:
    weight = Weight(path="w", offset=8, row_bytes=10, rows=3, stride_bytes=10)
    assert list(weight.runs()) == [(8, 30)]
    assert list(Weight(path="w", offset=8, row_bytes=10, rows=3, stride_bytes=16).runs()) == [(8, 10), (24, 10), (40, 10)]


def test_placeholder_has_type_and_shape_but_no_data() -> None:
    tensor = placeholder("w", TensorProto.FLOAT16, (3, 4))
    assert (tensor.name, tensor.data_type, tuple(tensor.dims)) == ("w", TensorProto.FLOAT16, (3, 4))
    assert tensor.data_location == TensorProto.EXTERNAL
    assert not tensor.raw_data


def test_skeleton_is_valid_onnx_without_the_weights(tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 64)
    net.node("Gemm", "x", net.weight("w", 64, 512), net.weight("b", 512), to="y")
    net.output("y")
    model = net.model(tmp_path)
    assert set(model.weights) == {"w"}
    bare = skeleton(model)
    onnx.checker.check_model(bare)
    assert [tensor.name for tensor in bare.graph.initializer] == ["b"]
    assert [value.name for value in bare.graph.input] == ["x", "w"]
    assert [tensor.name for tensor in model.proto.graph.initializer] == ["w", "b"], "the model itself is as it was"


def test_model_and_weight_cannot_be_changed() -> None:
    weight = Weight(path="w", offset=0, row_bytes=1)
    model = Model(proto=onnx.ModelProto(), weights={})
    with pytest.raises(AttributeError):
        weight.offset = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        model.weights = {}  # type: ignore[misc]
