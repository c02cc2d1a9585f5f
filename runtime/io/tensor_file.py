"""Read tensors from .npy and .npz files: what the model takes, and no more of a file than that needs.

numpy and zipfile read whole headers and directories, whatever length they claim: 1.5 MB of them can take 3 GB.
"""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.engine import InputTensors
from hyps.runtime.execution.input_checks import check_tensor
from hyps.runtime.io.file_parts import FileParts
from hyps.runtime.units import megabytes_down, megabytes_up

_PIECE_BYTES = 1 << 20
#: The compression methods that numpy uses; with others, zipfile unpacks more than it is asked for.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: The longest header of a .npy file that is read: those of tensors of 64 dimensions are shorter.
_HEADER_BYTES = 4096
#: The bytes of a .npz file's directory that are read: its end with the longest comment, and this for each input.
_DIRECTORY_BYTES, _ENTRY_BYTES = 70 << 10, 1 << 10


def read_npy(stream: BinaryIO, source: str, manifest: Manifest, room_bytes: int) -> InputTensors:
    """Return the one input of a model from a .npy file. Raises `InputError`, `RoomError`."""
    if len(manifest.inputs) != 1:
        raise InputError(f"{source} holds one tensor, the model takes {len(manifest.inputs)}; give an .npz file")
    return {manifest.inputs[0]: _read_array(stream, source, manifest.inputs[0], manifest, room_bytes)}


def read_npz(stream: BinaryIO, source: str, manifest: Manifest, room_bytes: int) -> InputTensors:
    """Return the inputs in a .npz file by name. Raises `InputError`, `RoomError`."""
    with _parsing(f"{source} is a damaged .npz file"), _archive(stream, source, manifest) as archive:
        members: Mapping[str, str] = {name.removesuffix(".npy"): name for name in archive.namelist()}
        tensors: dict[str, NDArray[Any]] = {}
        for name, member in members.items():
            if name not in manifest.inputs:
                takes = ", ".join(manifest.inputs)
                raise InputError(f"{source} holds a tensor {name!r}; the model takes {takes}")
            if archive.getinfo(member).compress_type not in _BOUNDED_METHODS:
                raise InputError(f"{source} is compressed by a method that numpy does not use; save it with numpy.savez")
            with archive.open(member) as inner:
                left_bytes = room_bytes - sum(array.nbytes for array in tensors.values())
                tensors[name] = _read_array(inner, source, name, manifest, left_bytes)
        return tensors


@contextmanager
def _archive(stream: BinaryIO, source: str, manifest: Manifest) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose directory is not much longer than the model's inputs need. Raises `InputError`."""
    count = len(manifest.inputs)
    bounded = FileParts(
        stream,
        [(0, stream.seek(0, os.SEEK_END))],
        allowance_bytes=_DIRECTORY_BYTES + _ENTRY_BYTES * count,
        refusal=f"{source} has many more members than the model has inputs; save its {count} with numpy.savez",
    )
    with zipfile.ZipFile(cast(IO[bytes], bounded)) as archive:
        bounded.lift_allowance()
        yield archive


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape of an array, whether it is in Fortran order, and its type. Raises ValueError for a long header."""
    version = npy_format.read_magic(stream)
    size_bytes = 2 if version == (1, 0) else 4
    head = stream.read(size_bytes)
    length = int.from_bytes(head, "little")
    if length > _HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    return read(io.BytesIO(head + stream.read(length)))


def _read_array(stream: IO[bytes], source: str, name: str, manifest: Manifest, room_bytes: int) -> NDArray[Any]:
    """Return one array in .npy form; its header is checked first, and pickled objects are refused."""
    record = manifest.tensors[name]
    with _parsing(f"{source} is a damaged .npy file"):
        shape, fortran, dtype = _read_header(stream)
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
