"""What to run on: photographs, folders of them, tensors in .npy or .npz files, or standard input."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.executor import check_tensor
from hyps.runtime.units import megabytes

Tensors = dict[str, NDArray[Any]]

_NPY_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_PIECE_BYTES = 1 << 20
#: How numpy packs; of other methods zipfile unpacks as much as there is, whatever it is asked for.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Standard input beyond this is refused.
STDIN_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """One input to run: its name for people, and where it is (bytes: already read from standard input)."""

    name: str
    content: Path | bytes


def sources(arguments: Iterable[str], stdin_limit_bytes: int = STDIN_LIMIT_BYTES) -> Iterator[InputSource]:
    """The inputs that the arguments name, folders expanded in the order of their file names.

    Raises `InputError` for what does not exist, a folder without pictures or tensors, and too long a standard input.
    """
    for argument in arguments:
        path = Path(argument)
        try:
            if argument == "-":
                yield InputSource(name="standard input", content=_read_stdin(stdin_limit_bytes))
            elif path.is_dir():
                yield from _folder(path)
            elif path.exists():
                yield _file(path)
            else:
                raise InputError(f"{argument} does not exist; name an image, a .npy or .npz file, a folder, or - for stdin")
        except OSError as error:
            raise InputError(f"cannot read {argument}: {error.strerror}") from None


def read_tensors(source: InputSource, manifest: Manifest, room_bytes: int) -> Tensors:
    """The model's inputs by name, read from ``source``; each is checked against the manifest before its data are read.

    ``room_bytes`` bounds the memory that this may take. Raises `InputError`.
    """
    if _starts_with(source, _NPY_MAGIC):
        return _read_npy(source, manifest, room_bytes)
    if _starts_with(source, _ZIP_MAGIC):
        return _read_npz(source, manifest, room_bytes)
    if manifest.preprocess is None:
        raise InputError(
            f"{source.name} is no .npy or .npz file, and this bundle takes no images: compile it with --preprocess"
        )
    from hyps.runtime.io.images import read_image  # Pillow costs memory that tensors do not need

    return {manifest.inputs[0]: read_image(source.content, source.name, manifest.preprocess, room_bytes)}


def _folder(path: Path) -> Iterator[InputSource]:
    from PIL import Image

    known = {".npy", ".npz", *Image.registered_extensions()}
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in known and file.is_file())
    if not found:
        raise InputError(f"{path} holds no images and no .npy or .npz files")
    yield from map(_file, found)


def _file(path: Path) -> InputSource:
    """A file; where its name is no UTF-8, people see replacement characters."""
    return InputSource(name=os.fsencode(path).decode(errors="replace"), content=path)


def _read_stdin(limit_bytes: int) -> bytes:
    content = sys.stdin.buffer.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise InputError(f"standard input is larger than {megabytes(limit_bytes)}; give a file instead")
    return content


def _open(source: InputSource) -> IO[bytes]:
    if isinstance(source.content, bytes):
        return io.BytesIO(source.content)
    try:
        return source.content.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source.name}: {error.strerror}") from None


def _starts_with(source: InputSource, magic: bytes) -> bool:
    with _open(source) as stream:
        return stream.read(len(magic)) == magic


def _read_npy(source: InputSource, manifest: Manifest, room_bytes: int) -> Tensors:
    if len(manifest.inputs) != 1:
        raise InputError(f"{source.name} is one tensor, the model takes {len(manifest.inputs)}; give an .npz file")
    with _open(source) as stream:
        return {manifest.inputs[0]: _read_array(stream, source.name, manifest.inputs[0], manifest, room_bytes)}


def _read_npz(source: InputSource, manifest: Manifest, room_bytes: int) -> Tensors:
    with _parsing(f"{source.name} is a damaged .npz file"), _open(source) as stream, zipfile.ZipFile(stream) as archive:
        members: Mapping[str, str] = {name.removesuffix(".npy"): name for name in archive.namelist()}
        tensors: Tensors = {}
        for name, member in members.items():
            if name not in manifest.inputs:
                takes = ", ".join(manifest.inputs)
                raise InputError(f"{source.name} holds a tensor {name!r}; the model takes {takes}")
            if archive.getinfo(member).compress_type not in _BOUNDED:
                raise InputError(f"{source.name} is packed by another method than numpy's; save it with numpy.savez")
            with archive.open(member) as inner:
                left_bytes = room_bytes - sum(array.nbytes for array in tensors.values())
                tensors[name] = _read_array(inner, source.name, name, manifest, left_bytes)
        return tensors


def _read_array(stream: IO[bytes], source: str, name: str, manifest: Manifest, room_bytes: int) -> NDArray[Any]:
    """One array in .npy form, its header checked first; no pickled objects."""
    record = manifest.tensors[name]
    with _parsing(f"{source} is a damaged .npy file"):
        version = npy_format.read_magic(stream)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        check_tensor(name, record, dtype, shape)
        needed_bytes = dtype.itemsize * math.prod(shape) * (2 if fortran else 1)
        if needed_bytes > room_bytes:
            raise RoomError(
                f"tensor {name!r} of {source} needs {megabytes(needed_bytes)} to read, {megabytes(max(room_bytes, 0))} "
                "are left of the budget; save it in C order, give a file, or compile with more memory"
            )
        if dtype.hasobject:
            raise InputError(f"{source} holds Python objects; give numbers")
        array = np.empty(tuple(reversed(shape)) if fortran else shape, dtype)
        _fill(array.reshape(-1).view(np.uint8), stream)
        if not dtype.isnative:
            array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
        return np.ascontiguousarray(array.T) if fortran else array


def _fill(data: NDArray[np.uint8], stream: IO[bytes]) -> None:
    """Read ``data`` piece by piece: a zip archive's members come as copies."""
    for start in range(0, data.size, _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        content = stream.read(piece.size)
        if len(content) < piece.size:
            raise EOFError(f"it ends after {start + len(content)} of {data.size} bytes")
        piece[:] = np.frombuffer(content, np.uint8)


@contextmanager
def _parsing(damaged: str) -> Iterator[None]:
    """Make an `InputError` of whatever zipfile, its decompressors and numpy raise on bytes that nobody vouches for."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{damaged}: {reason.splitlines()[0]}") from None
