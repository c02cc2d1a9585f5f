"""External data may be a link, where it leads to the folder that the model's own link leads to."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from hyps.compiler.errors import ModelFileError
from hyps.compiler.model_io.load import load_model
from tests.compiler.conftest import Compile
from tests.compiler.onnxes import linear, referred, saved


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a model in a folder like Hugging Face's cache: links next to each other into one folder of blobs."""
    folder = tmp_path / "snapshots" / "0123" / "onnx"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    saved(tmp_path / "model.onnx", linear(), data="model.onnx_data")
    for name, blob in (("model.onnx", "11"), ("model.onnx_data", "22")):
        (tmp_path / name).rename(tmp_path / "blobs" / blob)
        (folder / name).symlink_to(f"../../../blobs/{blob}")
    return folder / "model.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught, load_model(path):
        pass
    return str(caught.value)


def test_cache(cache: Path, compiled: Compile) -> None:
    ort.InferenceSession(cache)  # takes it as well
    bundle = compiled(cache)
    assert bundle.compiled.manifest.model.weight_bytes == 80_000
    assert not any(path.is_symlink() for path in bundle.folder.rglob("*"))


def test_link_to_the_snapshot(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "main").symlink_to(cache.parent)
    with load_model(tmp_path / "main" / "model.onnx") as loaded:
        assert loaded.weight_bytes == 80_000


@pytest.mark.parametrize("target", ["../../../secret", "/etc/passwd", "../../../blobs/../secret"])
def test_link_elsewhere(target: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(80_000))
    data = cache.with_name("model.onnx_data")
    data.unlink()
    data.symlink_to(target)
    assert "lies in 'model.onnx_data', outside the model's folder" in refusal(cache)


@pytest.mark.parametrize("location", ["../../../blobs/22", "sub/../../../../blobs/22", "{blobs}/22"])
def test_location_that_leads_there_by_itself(location: str, cache: Path, tmp_path: Path) -> None:
    place = location.format(blobs=tmp_path / "blobs")
    cache.resolve().write_bytes(linear(referred("w", [200, 100], {"location": place})).SerializeToString())
    assert "outside the model's folder" in refusal(cache)


def test_a_model_that_is_no_link_has_no_second_folder(cache: Path) -> None:
    content = cache.read_bytes()
    cache.unlink()
    cache.write_bytes(content)
    assert "outside the model's folder" in refusal(cache)
