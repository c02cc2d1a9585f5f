"""Read labelled inputs one at a time: a folder of pictures, or the arrays ``x`` and ``y`` of a .npz file.

Memory holds one input, and an integer for each: rows of an array are read as its file is decompressed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.labels import read_classes
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.session import to_numpy
from hyps.runtime.io.images import read_image, to_tensor
from hyps.runtime.io.picture_file import PICTURE_SUFFIXES

#: The memory that decoding a picture may take.
_DECODING_BYTES = 1 << 30
#: The most inputs that are read, and the most bytes of one.
MOST_INPUTS, _INPUT_BYTES = 10_000_000, 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class InputForm:
    """The form of a model's only input: its shape with a batch of one, its type, and what makes it of a picture."""

    shape: tuple[int, ...]
    dtype: str
    preprocess: Preprocess | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledInputs:
    """Labelled inputs. ``classes`` int64 [N]; None without labels. Iteration yields each input as a model takes it."""

    path: Path
    form: InputForm
    count: int
    classes: NDArray[np.int64] | None
    files: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if not self.files:
            yield from self._rows()
            return
        assert self.form.preprocess is not None
        for file in self.files:
            yield to_numpy(read_image(file, str(file), self.form.preprocess, _DECODING_BYTES))

    def _rows(self) -> Iterator[NDArray[Any]]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open("x.npy") as stream:
                shape, dtype = _header(stream, self.path, "x")
                size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
                for _ in range(self.count):
                    content = stream.read(size)
                    if len(content) != size:
                        raise OptionError(f"--data: {self.path} is cut short; copy it again")
                    yield self._input(np.frombuffer(content, dtype).reshape(shape[1:]))
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OptionError(f"--data: cannot read {self.path}: {error}; name another file") from None

    def _input(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return a row of the array as the model takes it: preprocessed if it is a picture."""
        if self.form.preprocess is None or row.dtype != np.uint8:
            return np.ascontiguousarray(row, self.form.dtype).reshape(self.form.shape)
        picture = Image.fromarray(row)
        wanted = "L" if self.form.preprocess.colour == "L" else "RGB"
        array: NDArray[Any] = to_numpy(to_tensor(picture.convert(wanted), self.form.preprocess))
        return array


def open_samples(path: Path, labels: Path | None, form: InputForm, class_count: int) -> LabelledInputs:
    """Return the inputs at ``path``, with the classes in ``labels``, in the file itself, or by sub-folder.

    Raises `OptionError` for files that cannot be read, or do not fit the model or each other.
    """
    samples = _folder(path, form) if path.is_dir() else _archive(path, form)
    if labels is not None:
        samples = LabelledInputs(
            path=path,
            form=form,
            count=samples.count,
            classes=read_classes(labels, samples.count, [file.name for file in samples.files]),
            files=samples.files,
        )
    found = samples.classes
    if found is not None and (found.min() < 0 or found.max() >= class_count):
        raise OptionError(f"--data: classes run from {found.min()} to {found.max()}, the model has 0 to {class_count - 1}")
    return samples


def _folder(path: Path, form: InputForm) -> LabelledInputs:
    if form.preprocess is None:
        raise OptionError(f"--data: {path} holds pictures, and how they become inputs is not known; add --preprocess")
    kinds = sorted(entry for entry in path.iterdir() if entry.is_dir())
    by_kind = [_pictures(kind) for kind in kinds] if kinds else [_pictures(path)]
    files = tuple(file for group in by_kind for file in group)
    if not files:
        raise OptionError(f"--data: {path} holds no pictures; name a folder of pictures, or of one folder a class")
    classes = np.repeat(np.arange(len(by_kind)), [len(group) for group in by_kind]) if kinds else None
    return LabelledInputs(path=path, form=form, count=len(files), classes=classes, files=files)


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())


def _archive(path: Path, form: InputForm) -> LabelledInputs:
    """Return the inputs of a .npz file, whose data are read later."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("x.npy") as stream:
                shape, dtype = _header(stream, path, "x")
            classes = None
            if "y.npy" in archive.namelist():
                with archive.open("y.npy") as stream:
                    classes = _classes(stream, path, shape[0])
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OptionError(f"--data: cannot read {path}: {error}; name a .npz file or a folder of pictures") from None
    except KeyError:
        raise OptionError(
            f"--data: {path} has no array 'x' of inputs; save it as numpy.savez(..., x=inputs, y=classes)"
        ) from None
    is_picture = dtype == np.uint8 and len(shape) in (3, 4)
    if is_picture and form.preprocess is None and form.dtype != "uint8":
        raise OptionError(f"--data: {path} holds pictures as uint8, and the model takes {form.dtype}; add --preprocess")
    if not is_picture and int(np.prod(shape[1:], dtype=np.int64)) != int(np.prod(form.shape)):
        raise OptionError(f"--data: an input in {path} is {list(shape[1:])}, the model takes {list(form.shape)}")
    return LabelledInputs(path=path, form=form, count=shape[0], classes=classes)


def _header(stream: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of a .npy stream, which then stands at its data. Raises `OptionError`."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
    except ValueError as error:
        raise OptionError(f"--data: the array {name!r} in {path} is damaged: {error}; save it again") from None
    row_bytes = int(np.prod([float(extent) for extent in shape[1:]])) * dtype.itemsize
    is_sound = not is_fortran and dtype.kind in "uif" and len(shape) > (name == "x") and 0 < shape[0] <= MOST_INPUTS
    if not is_sound or not 0 < row_bytes <= _INPUT_BYTES:
        raise OptionError(f"--data: the array {name!r} in {path} is no array of numbers in C order, one row an input")
    return shape, dtype


def _classes(stream: IO[bytes], path: Path, count: int) -> NDArray[np.int64]:
    shape, dtype = _header(stream, path, "y")
    if shape != (count,) or dtype.kind not in "ui":
        raise OptionError(f"--data: 'y' in {path} is {dtype}{list(shape)}; it needs one integer for each of {count} inputs")
    content = stream.read(count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise OptionError(f"--data: {path} is cut short; copy it again")
    return np.frombuffer(content, dtype).astype(np.int64)
