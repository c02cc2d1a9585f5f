"""Walk the protobuf wire format of an ONNX file: the device has no onnx package.

A message is a run of fields, each with a number and a value (protobuf's encoding guide). A caller knows from ``onnx.proto``
which number means what. A file that is cut short, or no protobuf, raises IndexError, KeyError or ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
#: The most bits that a variable-length integer is stored in, of which the lowest 64 count; a longer one is damaged.
_MOST_BITS, _LOWEST = 70, (1 << 64) - 1


def message_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of every field: an integer, or the bytes of any other value."""
    place = 0
    while place < len(message):
        key, place = _read_number(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _read_number(message, place)
            yield number, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _DELIMITED:
            length, place = _read_number(message, place)
        if (not length and kind != _DELIMITED) or place + length > len(message):
            raise ValueError(f"no field of {length} bytes at byte {place}")
        yield number, message[place : place + length]
        place += length


def message_parts(message: memoryview, field: int) -> Iterator[memoryview]:
    """Yield the bytes of every field of this number that holds bytes: a text or a message."""
    for number, value in message_fields(message):
        if number == field and isinstance(value, memoryview):
            yield value


def message_text(message: memoryview, field: int) -> str:
    """Return the first text of this number, or an empty one."""
    return bytes(next(message_parts(message, field), memoryview(b""))).decode()


def message_numbers(message: memoryview, field: int) -> Iterator[int]:
    """Yield the integers of a repeated field, which are packed into one field or have a field each."""
    for number, value in message_fields(message):
        if number == field and isinstance(value, int):
            yield value
        elif number == field and isinstance(value, memoryview):
            place = 0
            while place < len(value):
                each, place = _read_number(value, place)
                yield each


def _read_number(message: memoryview, place: int) -> tuple[int, int]:
    """Return the variable-length integer at ``place``, and the place after it."""
    value = shift = 0
    while shift < _MOST_BITS:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value & _LOWEST, place
    raise ValueError(f"a number of more than ten bytes at byte {place}")
