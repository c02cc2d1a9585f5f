"""A file that is no ONNX model is named for what it is, with the way to an ONNX model, in one line."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from hyps.compiler.errors import ModelFileError
from hyps.compiler.model_io.file_kinds import other_kind
from hyps.compiler.model_io.load import load_model
from tests.compiler.onnxes import classifier, linear, saved


def zipped(names: Iterable[str]) -> bytes:
    """Return a zip archive with members of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def tarred() -> bytes:
    """Return a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return stream.getvalue()


def safetensors() -> bytes:
    """Return the weights file of one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4788213\n"
KINDS = {
    "checkpoint": (zipped(["archive/data.pkl", "archive/data/0"]), "is a PyTorch checkpoint; load it in PyTorch"),
    "TorchScript": (zipped(["m/constants.pkl", "m/data.pkl", "m/code/m.py"]), "is a TorchScript program"),
    "old checkpoint": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(99), "is a Python pickle"),
    "Keras": (zipped(["config.json", "model.weights.h5"]), "is a Keras model; convert it with 'python -m tf2onnx.convert"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, as Keras writes; convert it with"),
    "zip": (zipped(["a/net.onnx", "readme"]), "is a zip archive; unpack it with unzip, and name a/net.onnx inside"),
    "zip of something": (zipped(["readme"]), "is a zip archive; unpack it with unzip, and name the .onnx file inside"),
    "gzip": (gzip.compress(linear().SerializeToString()), "is a gzip archive; unpack it with gunzip"),
    "tar": (tarred(), "is a tar archive; unpack it with tar -xf"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(99), "is a TensorFlow Lite model; convert it with"),
    "ORT": (b"\x18\0\0\0ORTM" + bytes(99), "is a model in onnxruntime's .ort format; compile the .onnx file"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(99), "is a GGUF file, for llama.cpp; export the original model"),
    "safetensors": (safetensors(), "holds weights alone (safetensors)"),
    "LFS": (POINTER, "is a Git LFS pointer, not the model itself; fetch the model with 'git lfs pull'"),
    "page": (b"\n<!DOCTYPE html>\n<html><head><title>404</title>", "is a web page, not a model; download the file itself"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="m" version="11">', "is an OpenVINO model"),
    "JSON": (b'{"error": "Repository not found"}', "is JSON text, not a model"),
    "numpy": (b"\x93NUMPY\x01\0" + bytes(99), "is a numpy array"),
    "SavedModel": (b"\x08\x01\x12\xa0\x06" + bytes(99), "is a TensorFlow SavedModel; convert it with"),
}


@pytest.mark.parametrize(("content", "words"), KINDS.values(), ids=KINDS.keys())
def test_kind(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught, load_model(path):
        pass
    assert str(caught.value).startswith(f"{path} {words}")
    assert "\n" not in str(caught.value)


def test_saved_model_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12")
    with pytest.raises(ModelFileError, match=f"--saved-model {tmp_path} --output MODEL.onnx"), load_model(tmp_path):
        pass


def test_folder_with_a_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", linear())
    with pytest.raises(ModelFileError, match=f"is a folder; name an .onnx file, such as {path}$"), load_model(tmp_path):
        pass


def test_models_are_none_of_these(tmp_path: Path) -> None:
    for proto in (linear(), classifier(), linear(ir_version=3)):
        assert other_kind(saved(tmp_path / "m.onnx", proto)) is None


def test_the_list_of_a_large_archive_is_not_read_whole(tmp_path: Path) -> None:
    """200,000 members are 20 MB of list."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"PK\x03\x04" + bytes(20_000_000) + b"archive/data.pkl")
    assert "PyTorch checkpoint" in (other_kind(path) or "")
