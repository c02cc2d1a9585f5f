"""Read a model's structure without its weights, by walking the protobuf wire format.

A one-file model holds each weight's bytes as a length-delimited field (``TensorProto.raw_data``, or packed ``float_data``
and ``double_data``, which are the same bytes). The walk skips these bytes and ends the tensor with an external-data
reference to the file itself, so a 528 MB model is read in milliseconds and a few pages of memory. Wire format: protobuf
encoding guide; field numbers: onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from hyps.compiler.errors import ModelFileError
from hyps.passes.weights import REFERENCE_BYTES

WireBuffer = mmap.mmap | bytes

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
#: ``raw_data``, and the packed fields whose bytes are those of ``raw_data``.
_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA = 9, 4, 10
#: All fields that hold a tensor's values, or say in which file they are.
_VALUES = frozenset({_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA, 5, 6, 7, 11, 13})
_DATA_LOCATION = 14


@dataclass(frozen=True, slots=True)
class _Message:
    """A message type: its fields that lead to weights, by number; ``tensor`` marks TensorProto.

    From field ``end`` on nothing leads to weights. Serialisers write fields by ascending number, so the walk stops there.
    """

    fields: dict[int, _Message]
    tensor: bool = False
    end: int | None = None


_TENSOR = _Message({}, tensor=True)
#: From 7 on: lists of numbers and of strings, each element a field of its own, millions of them in an ensemble of trees.
_ATTRIBUTE = _Message({5: _TENSOR}, end=7)
_NODE = _Message({5: _ATTRIBUTE})
_GRAPH = _Message({1: _NODE, 5: _TENSOR})
_MODEL = _Message({7: _GRAPH})
_ATTRIBUTE.fields.update({6: _GRAPH, 10: _TENSOR, 11: _GRAPH})


def read_structure(path: Path) -> bytes:
    """Return the serialised model with every large weight replaced by a reference into ``path`` itself.

    Raises `ModelFileError` for a file that is no protobuf, or is cut short.
    """
    size = path.stat().st_size
    if not size:
        raise ModelFileError(f"{path} is empty; export the model again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return b"".join(_strip(data, 0, size, _MODEL, path.name))
        except RecursionError:
            raise ModelFileError(f"{path} has graphs within graphs without end; export or copy it again") from None
        except _Malformed as error:
            raise ModelFileError(f"{path} is no ONNX file or is cut short ({error}); export or copy it again") from None


class _Malformed(Exception):
    pass


def _strip(data: WireBuffer, start: int, end: int, message: _Message, name: str) -> list[bytes]:
    """Return the pieces of one message, its large weights replaced."""
    if message.tensor:
        return _strip_tensor(data, start, end, name)
    pieces: list[bytes] = []
    kept_from = start
    for number, wire_type, field_start, value_start, value_end in _fields(data, start, end):
        if message.end is not None and number >= message.end:
            break  # the parser checks the rest
        inner = message.fields.get(number)
        if inner is None or wire_type != _DELIMITED or value_end - value_start < REFERENCE_BYTES:
            continue
        replaced = _strip(data, value_start, value_end, inner, name)
        body = _varint(number << 3 | _DELIMITED) + _varint(sum(map(len, replaced)))
        pieces += [data[kept_from:field_start], body, *replaced]
        kept_from = value_end
    pieces.append(data[kept_from:end])
    return pieces


def _strip_tensor(data: WireBuffer, start: int, end: int, name: str) -> list[bytes]:
    """Return the pieces of a tensor, a reference in place of its values if these are large and in one field.

    The reference comes last: a parser takes the last ``data_location``, and the tensor's own may be ``DEFAULT``.
    """
    count, span = 0, (start, end, end)
    for number, wire_type, field_start, value_start, value_end in _fields(data, start, end):
        if number in _VALUES or (number == _DATA_LOCATION and data[value_start] == TensorProto.EXTERNAL):
            count += 1
            is_bytes = number in (_RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA) and wire_type == _DELIMITED
            span = (field_start, value_start if is_bytes else value_end, value_end)
    field_start, value_start, value_end = span
    if count != 1 or value_end - value_start < REFERENCE_BYTES:
        return [data[start:end]]
    return [data[start:field_start], data[value_end:end], _reference(name, value_start, value_end - value_start)]


def _fields(data: WireBuffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield each field's (number, wire type, start, start of its value, end of its value)."""
    position = start
    while position < end:
        key, value_start = _read_varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == _DELIMITED:
            length, value_start = _read_varint(data, value_start, end)
            value_end = value_start + length
        elif wire_type == _VARINT:
            _, value_end = _read_varint(data, value_start, end)
        elif wire_type in (_FIXED64, _FIXED32):
            value_end = value_start + (8 if wire_type == _FIXED64 else 4)
        else:
            raise _Malformed(f"unknown wire type {wire_type} at byte {position}")
        if number == 0 or value_end > end:
            raise _Malformed(f"field {number} at byte {position} reaches beyond its message")
        yield number, wire_type, position, value_start, value_end
        position = value_end


def _read_varint(data: WireBuffer, position: int, end: int) -> tuple[int, int]:
    """Return (value, position after it) of a base-128 varint of at most ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _Malformed(f"the file ends inside a number at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed(f"a number of more than ten bytes at byte {position}")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _reference(name: str, offset: int, length: int) -> bytes:
    """Return the TensorProto fields that place the data in file ``name``; a parser merges them into the tensor around."""
    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in (("location", name), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return bytes(tensor.SerializeToString())
