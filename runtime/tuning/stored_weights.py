"""Find the weights that an ONNX file keeps in another file, by walking the protobuf wire format.

The device has no onnx package. Of the file's fields only those that lead to initializers are read (onnx.proto: ModelProto
7 is the graph, GraphProto 5 an initializer, TensorProto 1, 2, 8 and 13 are its shape, type, name and place).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyps.runtime.bundle.manifest import STORAGE_TYPES, WeightRecord
from hyps.runtime.errors import BundleError

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _PLACE = 1, 2, 8, 13
_KEY, _VALUE = 1, 2
_TYPE_NAMES = {storage.onnx: name for name, storage in STORAGE_TYPES.items()}


def stored_weights(path: Path) -> tuple[WeightRecord, ...]:
    """Return the weights of a model that lie in a file next to it, of types that the runtime can hand to onnxruntime.

    Raises `BundleError` for a file that is no ONNX model.
    """
    try:
        data = memoryview(path.read_bytes())
        tensors = [each for graph in _parts(data, _GRAPH) for each in _parts(graph, _INITIALIZER)]
        return tuple(record for tensor in tensors for record in _record(tensor))
    except (IndexError, ValueError, KeyError):  # cut short, or no protobuf
        raise BundleError(f"{path} is no ONNX model", "tune the bundle again") from None


def _record(tensor: memoryview) -> Iterator[WeightRecord]:
    """Yield the record of a tensor that lies in another file."""
    place = {_text(entry, _KEY): _text(entry, _VALUE) for entry in _parts(tensor, _PLACE)}
    kind = next((value for number, value in _fields(tensor) if number == _TYPE), 0)
    if place and kind in _TYPE_NAMES:
        shape = tuple(_shape(tensor))
        yield WeightRecord(
            name=_text(tensor, _NAME), dtype=_TYPE_NAMES[kind], shape=shape, offset=int(place.get("offset", "0"))
        )


def _shape(tensor: memoryview) -> Iterator[int]:
    """Yield a tensor's dimensions, which are packed into one field or have a field each."""
    for number, value in _fields(tensor):
        if number == _DIMS and isinstance(value, int):
            yield value
        elif number == _DIMS and isinstance(value, memoryview):
            place = 0
            while place < len(value):
                size, place = _number(value, place)
                yield size


def _text(message: memoryview, field: int) -> str:
    return bytes(next(_parts(message, field), memoryview(b""))).decode()


def _parts(message: memoryview, field: int) -> Iterator[memoryview]:
    """Yield the bytes of every length-delimited field of this number."""
    for number, value in _fields(message):
        if number == field and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of every field: an integer, or the bytes of what is length-delimited."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _number(message, place)
            yield number, value
        elif kind == _DELIMITED:
            length, place = _number(message, place)
            if place + length > len(message):
                raise ValueError(length)
            yield number, message[place : place + length]
            place += length
        else:
            place += {_FIXED64: 8, _FIXED32: 4}[kind]


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """Return the variable-length integer at ``place``, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
