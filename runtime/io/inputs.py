"""Find and read inputs: photographs, folders of them, tensors in .npy or .npz files, or standard input."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.engine import InputTensors
from hyps.runtime.execution.executor import check_tensor
from hyps.runtime.units import megabytes, megabytes_down, megabytes_up

_NPY_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_PIECE_BYTES = 1 << 20
#: The compression methods that numpy uses; with others, zipfile unpacks more than it is asked for.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: The most that is read from standard input.
STDIN_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """One input to run: a name for messages and results, and its content, a file or bytes.

    It is an `hyps.runtime.execution.engine.EngineInput`.
    """

    name: str
    content: Path | bytes

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensors; see `read_tensors`."""
        return read_tensors(self, manifest, room_bytes())


class StandardInput:
    """The input from standard input, read when an engine has room for it; its bytes are dropped once they are decoded."""

    name = "standard input"

    def __init__(self) -> None:
        self._content: bytes | None = None

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensors; see `read_tensors`. Raises `InputError` for a longer input than there is room for."""
        if self._content is None:
            self._content = _read_stdin(min(STDIN_LIMIT_BYTES, max(0, room_bytes())))
        tensors = read_tensors(InputSource(name=self.name, content=self._content), manifest, room_bytes())
        self._content = None
        return tensors


class InputQueue:
    """An iterator over inputs: it keeps no reference to those it has yielded, and its length is the number left."""

    def __init__(self, inputs: Iterable[InputSource | StandardInput]) -> None:
        self._waiting = deque(inputs)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> InputSource | StandardInput:
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def __len__(self) -> int:
        return len(self._waiting)


def sources(arguments: Iterable[str]) -> Iterator[InputSource | StandardInput]:
    """Yield the inputs that the arguments name, folders expanded in the order of their file names.

    Raises `InputError` for a path that does not exist, and for a folder without pictures or tensors.
    """
    for argument in arguments:
        path = Path(argument)
        try:
            if argument == "-":
                yield StandardInput()
            elif path.is_dir():
                yield from _folder(path)
            elif path.exists():
                yield _file(path)
            else:
                raise InputError(f"{argument} does not exist; name an image, a .npy or .npz file, a folder, or - for stdin")
        except OSError as error:
            raise InputError(f"cannot read {argument}: {error.strerror}") from None


def read_tensors(source: InputSource, manifest: Manifest, room_bytes: int) -> InputTensors:
    """Read and return the model's inputs by name; each is checked against the manifest before its data are read.

    ``room_bytes`` bounds the memory that reading may take. Raises `InputError`, and `RoomError` where an input does not fit.
    """
    if _starts_with(source, _NPY_MAGIC):
        return _read_npy(source, manifest, room_bytes)
    if _starts_with(source, _ZIP_MAGIC):
        return _read_npz(source, manifest, room_bytes)
    if manifest.preprocess is None:
        raise InputError(
            f"{source.name} is not a .npy or .npz file, and this bundle takes no images: compile it with --preprocess"
        )
    from hyps.runtime.io.images import read_image  # Pillow costs memory that tensors do not need

    return {manifest.inputs[0]: read_image(source.content, source.name, manifest.preprocess, room_bytes)}


def _folder(path: Path) -> Iterator[InputSource]:
    from PIL import Image

    suffixes = {".npy", ".npz", *Image.registered_extensions()}
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise InputError(f"{path} holds no images and no .npy or .npz files")
    yield from map(_file, files)


def _file(path: Path) -> InputSource:
    """Return the input of a file; a name that is not UTF-8 gets replacement characters."""
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


def _read_npy(source: InputSource, manifest: Manifest, room_bytes: int) -> InputTensors:
    if len(manifest.inputs) != 1:
        raise InputError(f"{source.name} holds one tensor, the model takes {len(manifest.inputs)}; give an .npz file")
    with _open(source) as stream:
        return {manifest.inputs[0]: _read_array(stream, source.name, manifest.inputs[0], manifest, room_bytes)}


def _read_npz(source: InputSource, manifest: Manifest, room_bytes: int) -> InputTensors:
    with _parsing(f"{source.name} is a damaged .npz file"), _open(source) as stream, zipfile.ZipFile(stream) as archive:
        members: Mapping[str, str] = {name.removesuffix(".npy"): name for name in archive.namelist()}
        tensors: dict[str, NDArray[Any]] = {}
        for name, member in members.items():
            if name not in manifest.inputs:
                takes = ", ".join(manifest.inputs)
                raise InputError(f"{source.name} holds a tensor {name!r}; the model takes {takes}")
            if archive.getinfo(member).compress_type not in _BOUNDED_METHODS:
                raise InputError(
                    f"{source.name} is compressed by a method that numpy does not use; save it with numpy.savez"
                )
            with archive.open(member) as inner:
                left_bytes = room_bytes - sum(array.nbytes for array in tensors.values())
                tensors[name] = _read_array(inner, source.name, name, manifest, left_bytes)
        return tensors


def _read_array(stream: IO[bytes], source: str, name: str, manifest: Manifest, room_bytes: int) -> NDArray[Any]:
    """Return one array in .npy form; its header is checked first, and pickled objects are refused."""
    record = manifest.tensors[name]
    with _parsing(f"{source} is a damaged .npy file"):
        version = npy_format.read_magic(stream)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        check_tensor(name, record, dtype, shape)
        needed_bytes = dtype.itemsize * math.prod(shape) * (2 if fortran else 1)
        if needed_bytes > room_bytes:
            raise RoomError(
                f"tensor {name!r} of {source} needs {megabytes_up(needed_bytes)} to read, "
                f"{megabytes_down(max(room_bytes, 0))} are left of the budget; save it in C order, give a "
                "file, or compile with more memory"
            )
        if dtype.hasobject:
            raise InputError(f"{source} holds Python objects; give numbers")
        array = np.empty(tuple(reversed(shape)) if fortran else shape, dtype)
        _fill(array.reshape(-1).view(np.uint8), stream)
        if not dtype.isnative:
            array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
        return np.ascontiguousarray(array.T) if fortran else array


def _fill(data: NDArray[np.uint8], stream: IO[bytes]) -> None:
    """Read into ``data`` piece by piece, as a zip archive returns copies."""
    for start in range(0, data.size, _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        content = stream.read(piece.size)
        if len(content) < piece.size:
            raise EOFError(f"it ends after {start + len(content)} of {data.size} bytes")
        piece[:] = np.frombuffer(content, np.uint8)


@contextmanager
def _parsing(damaged: str) -> Iterator[None]:
    """Turn whatever zipfile, its decompressors and numpy raise on untrusted bytes into an `InputError`."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{damaged}: {reason.splitlines()[0]}") from None
