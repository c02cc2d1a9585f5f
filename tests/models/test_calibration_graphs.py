"""The graphs in the runtime's package are those that the script builds, and compute what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from hyps.models.calibration_graphs import GRAPHS, photograph, write
from hyps.runtime.calibration.baseline import PHOTOGRAPH_SIZE


def test_those_of_the_runtime_are_what_the_script_writes(root: Path, tmp_path: Path) -> None:
    """Otherwise: python -m hyps.models.calibration_graphs runtime/calibration/data."""
    write(tmp_path)
    shipped = root / "runtime" / "calibration" / "data"
    assert {path.name for path in shipped.iterdir()} == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.glob("*.onnx"):
        assert path.read_bytes() == (shipped / path.name).read_bytes(), path.name


def test_the_photograph_is_like_one(root: Path) -> None:
    """Another libjpeg may write other bytes."""
    path = root / "runtime" / "calibration" / "data" / "photograph.jpg"
    with Image.open(path) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", PHOTOGRAPH_SIZE, "RGB")
        pixels = np.asarray(picture).astype(int)
    assert pixels.std() > 30
    assert np.abs(pixels - np.asarray(photograph())).mean() < 8
    assert 0.1 < path.stat().st_size / (PHOTOGRAPH_SIZE[0] * PHOTOGRAPH_SIZE[1]) < 1.5


@pytest.mark.parametrize("name", GRAPHS)
def test_they_are_small(name: str) -> None:
    assert GRAPHS[name]().ByteSize() < 1000


def session(name: str) -> ort.InferenceSession:
    return ort.InferenceSession(GRAPHS[name]().SerializeToString(), providers=["CPUExecutionProvider"])


def test_conv_keeps_height_and_width() -> None:
    x, w = np.ones((1, 2, 5, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)
    (y,) = session("conv").run(None, {"x": x, "w": w})
    assert y.shape == (1, 3, 5, 6)
    assert y[0, 0, 2, 2] == 2 * 3 * 3
    assert y[0, 0, 0, 0] == 2 * 2 * 2


def test_gemm_takes_the_weight_transposed() -> None:
    x, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(4, 3)
    (y,) = session("gemm").run(None, {"x": x, "w": w})
    assert np.array_equal(y, x @ w.T)


def test_depthwise_channels_have_filters_of_their_own() -> None:
    x, w = np.ones((1, 96, 5, 6), np.float32), np.arange(96, dtype=np.float32).reshape(96, 1, 1, 1).repeat(9, 2)
    (y,) = session("depthwise").run(None, {"x": x, "w": w.reshape(96, 1, 3, 3)})
    assert y[0, :, 2, 2].tolist() == [9.0 * channel for channel in range(96)]


def test_chain_multiplies_twelve_times() -> None:
    x, w = np.full((1, 1, 1, 1), 3, np.float32), np.full((1, 1, 1, 1), 2, np.float32)
    (y,) = session("chain").run(None, {"x": x, "w": w})
    assert y.item() == 3 * 2**12


def test_tiny_takes_a_picture() -> None:
    (y,) = session("tiny").run(None, {"image": np.full((1, 3, 224, 224), 0.5, np.float32)})
    np.testing.assert_allclose(y, [[0.5, 0.5]], rtol=1e-6)
