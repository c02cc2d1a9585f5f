"""Recognise files that are no ONNX model by how they start, and say for each how to get one."""

from __future__ import annotations

import re
from pathlib import Path

#: The bytes that are read of a file's start, and of the end of a zip archive, where its list of members is.
_HEAD_BYTES, _TAIL_BYTES = 512, 1 << 20
_TORCH = "load it in PyTorch, build the network, and export that with torch.onnx.export"
_TENSORFLOW = "convert it with 'python -m tf2onnx.convert"

#: Files with fixed first bytes: (offset, bytes, what the file is, the way out).
_MAGIC = (
    (0, b"\x1f\x8b", "is a gzip archive", "unpack it with gunzip, and name the .onnx file inside"),
    (0, b"BZh", "is a bzip2 archive", "unpack it with bunzip2, and name the .onnx file inside"),
    (0, b"\xfd7zXZ\0", "is an xz archive", "unpack it with unxz, and name the .onnx file inside"),
    (0, b"\x28\xb5\x2f\xfd", "is a zstd archive", "unpack it with unzstd, and name the .onnx file inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it, and name the .onnx file inside"),
    (257, b"ustar", "is a tar archive", "unpack it with tar -xf, and name the .onnx file inside"),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes", f"{_TENSORFLOW} --keras MODEL.h5 --output MODEL.onnx'"),
    (0, b"GGUF", "is a GGUF file, for llama.cpp", "export the original model to ONNX, for example with optimum-cli"),
    (4, b"TFL3", "is a TensorFlow Lite model", f"{_TENSORFLOW} --tflite MODEL.tflite --output MODEL.onnx'"),
    (4, b"ORTM", "is a model in onnxruntime's .ort format", "compile the .onnx file that it was made from"),
    (0, b"\x93NUMPY", "is a numpy array", "name an .onnx file; give arrays to hyps-run"),
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the model itself", "fetch the model with 'git lfs pull'"),
    (0, b"\x80\x02", "is a Python pickle, as old PyTorch checkpoints are", _TORCH),
    (0, b"\x80\x03", "is a Python pickle", _TORCH),
    (0, b"\x80\x04", "is a Python pickle", _TORCH),
    (0, b"\x80\x05", "is a Python pickle", _TORCH),
)


def other_kind(path: Path) -> str | None:
    """Return what a file or folder is and how to get an ONNX model from it; None where it may be one."""
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(b"\x08"):  # the first field of almost every ONNX file, and of no other kind but one
        return _saved_model(path.parent) if head.startswith(b"\x08\x01\x12") else None
    for offset, magic, what, way_out in _MAGIC:
        if head.startswith(magic, offset):
            return f"{what}; {way_out}"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "holds weights alone (safetensors); build the network, load them, and export that to ONNX"
    return _text(head.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _text(text: bytes) -> str | None:
    if text.startswith((b"<?xml", b"<net")) and b"<net" in text:
        return "is an OpenVINO model; export the original model to ONNX"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "is a web page, not a model; download the file itself, by the page's download link"
    if text.startswith((b'{"', b"{\n", b"{ ")):
        return "is JSON text, not a model; name an .onnx file"
    return None


def _folder(path: Path) -> str | None:
    if (path / "saved_model.pb").is_file():
        return _saved_model(path)
    found = next(iter(sorted(path.glob("*.onnx"))), None)
    return None if found is None else f"is a folder; name an .onnx file, such as {found}"


def _saved_model(folder: Path) -> str:
    return f"is a TensorFlow SavedModel; {_TENSORFLOW} --saved-model {folder} --output MODEL.onnx'"


def _zip(path: Path) -> str:
    """Name the kind of a zip archive by the members that its first and last bytes name.

    The whole list is not read: that of a hostile archive may be very long.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        names = head + stream.read(_TAIL_BYTES)
    if b"/constants.pkl" in names:
        return f"is a TorchScript program; {_TORCH}"
    if b"/data.pkl" in names:
        return f"is a PyTorch checkpoint; {_TORCH}"
    if b"model.weights.h5" in names:
        return f"is a Keras model; {_TENSORFLOW} --keras MODEL.keras --output MODEL.onnx'"
    inside = re.search(rb"[\w./-]{1,200}\.onnx", names)
    member = inside[0].decode() if inside else "the .onnx file"
    return f"is a zip archive; unpack it with unzip, and name {member} inside"
