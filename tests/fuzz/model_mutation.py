"""Damage ONNX models field by field, so that they are still protobuf and reach the passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import strategies as st

from tests.fuzz.mutation import EDGES, damaged_bytes

_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_ENUM}
_NUMBERS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}
_TEXTS = ("", "x", "image", "Conv", "Loop", "\x1b[2J\u202e<b>", "a" * 3000)
_FLOATS = (0.0, -1.0, 1e38, float("nan"), float("inf"))
_MOST_BYTES = 1 << 20


@st.composite
def damaged_model(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw a model with one to three fields that are changed, cleared, repeated, or copied from another place."""
    if draw(st.integers(0, 9)) == 0:
        return draw(damaged_bytes(seeds))
    model = onnx.ModelProto.FromString(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        fields = [*_fields(model)]
        if not fields:
            break
        holder, field = draw(st.sampled_from(fields))
        match draw(st.integers(0, 3)):
            case 0:
                holder.ClearField(field.name)
            case 1 if field.is_repeated:
                values = getattr(holder, field.name)
                at = draw(st.integers(0, len(values) - 1))
                if draw(st.booleans()):
                    del values[at]
                else:
                    values.extend([values[at]] * draw(st.sampled_from((1, 2, 50))))
            case 2 if field.message_type:
                value = getattr(holder, field.name)
                target = value[draw(st.integers(0, len(value) - 1))] if field.is_repeated else value
                others = [each for each, _ in _fields(model) if each.DESCRIPTOR is field.message_type]
                if others:
                    target.CopyFrom(type(target).FromString(draw(st.sampled_from(others)).SerializeToString()))
            case _ if not field.message_type:
                _set(draw, holder, field)
        if model.ByteSize() > _MOST_BYTES:
            break
    content: bytes = model.SerializeToString()
    return content


def _fields(message: Message) -> Iterator[tuple[Any, Any]]:
    """Yield every field that is set, with the message that holds it."""
    for field, value in message.ListFields():
        yield message, field
        for inner in (value if field.is_repeated else [value]) if field.message_type else ():
            yield from _fields(inner)


def _set(draw: st.DrawFn, holder: Any, field: Any) -> None:
    """Set a plain value to an extreme; one that the type cannot hold is left out."""
    if field.cpp_type in _INTEGERS:
        value: Any = draw(st.sampled_from((*EDGES, -1, -2, -(1 << 63), 3, 16, 64)))
    elif field.cpp_type in _NUMBERS:
        value = draw(st.sampled_from(_FLOATS))
    else:
        text = draw(st.sampled_from(_TEXTS))
        value = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
    try:
        if field.is_repeated:
            values = getattr(holder, field.name)
            values[draw(st.integers(0, len(values) - 1))] = value
        else:
            setattr(holder, field.name, value)
    except (ValueError, TypeError, DecodeError):
        pass
