"""Find the weights that an ONNX file keeps in another file.

Of the file's fields only those that lead to initializers are read (onnx.proto: ModelProto 7 is the graph, GraphProto 5 an
initializer, TensorProto 1, 2, 8 and 13 are its shape, type, name and place).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.files import WeightRecord
from hyps.runtime.bundle.wire_fields import message_fields, message_numbers, message_parts, message_text
from hyps.runtime.errors import BundleError

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
        tensors = [each for graph in message_parts(data, _GRAPH) for each in message_parts(graph, _INITIALIZER)]
        return tuple(record for tensor in tensors for record in _record(tensor))
    except (IndexError, ValueError, KeyError):  # cut short, or no protobuf
        raise BundleError(f"{path} is no ONNX model", "tune the bundle again") from None


def _record(tensor: memoryview) -> Iterator[WeightRecord]:
    """Yield the record of a tensor that lies in another file."""
    place = {message_text(entry, _KEY): message_text(entry, _VALUE) for entry in message_parts(tensor, _PLACE)}
    kind = next((value for number, value in message_fields(tensor) if number == _TYPE), 0)
    if place and kind in _TYPE_NAMES:
        shape = tuple(message_numbers(tensor, _DIMS))
        yield WeightRecord(
            name=message_text(tensor, _NAME), dtype=_TYPE_NAMES[kind], shape=shape, offset=int(place.get("offset", "0"))
        )
