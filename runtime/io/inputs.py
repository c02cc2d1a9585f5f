"""Find and read inputs: photographs, folders of them, tensors in .npy or .npz files, or standard input."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError
from hyps.runtime.execution.engine import InputTensors
from hyps.runtime.execution.tensor import RawTensor
from hyps.runtime.units import megabytes

_NPY_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
#: The most that is read from standard input.
STDIN_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """One input to run: a name for messages and results, and its content, a file or bytes.

    It is an `hyps.runtime.execution.engine.EngineInput`.
    """

    name: str
    content: Path | bytes

    @property
    def holds_tensors(self) -> bool:
        """Whether it is a .npy or .npz file. Raises `InputError` where it cannot be read."""
        return _starts_with(self, _NPY_MAGIC) or _starts_with(self, _ZIP_MAGIC)

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensors; see `read_tensors`."""
        return read_tensors(self, manifest, room_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSource:
    """A picture for onnxruntime's C interface: an `hyps.runtime.execution.engine.EngineInput` that makes a `RawTensor`."""

    source: InputSource

    @property
    def name(self) -> str:
        """The picture's name."""
        return self.source.name

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensor; see `read_picture`."""
        return read_picture(self.source, manifest, room_bytes())


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


#: An input as `InputQueue` yields it.
AnySource = InputSource | PictureSource | StandardInput


class InputQueue:
    """An iterator over inputs: it keeps no reference to those it has yielded, and its length is the number left."""

    def __init__(self, inputs: Iterable[AnySource]) -> None:
        self._waiting = deque(inputs)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnySource:
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
    if source.holds_tensors:
        from hyps.runtime.io.tensor_file import read_npy, read_npz

        with _open(source) as stream:
            read = read_npy if _starts_with(source, _NPY_MAGIC) else read_npz
            return read(stream, source.name, manifest, room_bytes)
    from hyps.runtime.execution.session import to_numpy

    return {name: to_numpy(tensor) for name, tensor in read_picture(source, manifest, room_bytes).items()}


def read_picture(source: InputSource, manifest: Manifest, room_bytes: int) -> dict[str, RawTensor]:
    """Return a model's only input, made of a picture; numpy is not imported. Raises `InputError`, `RoomError`."""
    if manifest.preprocess and manifest.preprocess.frames:
        raise InputError(f"{source.name}: this bundle takes windows of frames; give a video, or a folder of pictures alone")
    if manifest.preprocess is None:
        raise InputError(
            f"{source.name} is not a .npy or .npz file, and this bundle takes no images: compile it with --preprocess"
        )
    from hyps.runtime.io.images import read_image  # Pillow costs memory that tensors do not need

    return {manifest.inputs[0]: read_image(source.content, source.name, manifest.preprocess, room_bytes)}


def _folder(path: Path) -> Iterator[InputSource]:
    from hyps.runtime.io.picture_file import PICTURE_SUFFIXES  # most runs name no folder

    suffixes = {".npy", ".npz", *PICTURE_SUFFIXES}
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


def _open(source: InputSource) -> BinaryIO:
    if isinstance(source.content, bytes):
        return io.BytesIO(source.content)
    try:
        return source.content.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source.name}: {error.strerror}") from None


def _starts_with(source: InputSource, magic: bytes) -> bool:
    with _open(source) as stream:
        return stream.read(len(magic)) == magic
