"""Write a model while its weights are drawn: memory holds one weight at a time, never the whole model.

Weights stand either inside the model's file or, as ONNX external data, in one file next to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from hyps.models.weights import SeededWeight

INLINE_BYTES = 1024
"""Smaller weights stay in the model's file even with external data, as in ``onnx.save``."""
PAGE_BYTES = 64 * 1024
"""The largest memory page among the boards' kernels: weights that begin on one can be mapped."""


def data_path(path: Path) -> Path:
    """Return the path of a model's external data."""
    return path.with_name(f"{path.name}.data")


def write_external(
    path: Path, model: ModelProto, weights: Sequence[SeededWeight], seed: int, advance: Callable[[int], None]
) -> None:
    """Write ``model`` to ``path`` and its weights to ``data_path(path)``; weights of a page or more begin on a page.

    ``advance`` is called with the bytes of each.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    with data_path(path).open("wb") as data:
        for weight in weights:
            values = weight.draw(seed)
            advance(weight.size_bytes)
            if weight.size_bytes < INLINE_BYTES:
                whole.graph.initializer.append(numpy_helper.from_array(values, weight.name))
                continue
            if weight.size_bytes >= PAGE_BYTES:
                data.seek(-data.tell() % PAGE_BYTES, 1)
            tensor = whole.graph.initializer.add()
            tensor.CopyFrom(_without_values(weight))
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": data_path(path).name, "offset": data.tell(), "length": weight.size_bytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            data.write(values.data)
    path.write_bytes(whole.SerializeToString())


def write_inline(
    path: Path, model: ModelProto, weights: Sequence[SeededWeight], seed: int, advance: Callable[[int], None]
) -> None:
    """Write ``model`` with its weights to ``path``; ``advance`` is called with the bytes of each.

    Serialising a ``ModelProto`` would need all weights in memory twice. A protobuf message is the concatenation of its
    fields, each a tag, a length and the content (protobuf.dev/programming-guides/encoding), and all lengths are known
    beforehand, so the three nested messages (model, graph, tensor) are put together here.
    """
    envelope = ModelProto()
    envelope.CopyFrom(model)
    envelope.ClearField("graph")
    graph = model.graph.SerializeToString()
    headers = [_initializer_field(weight) for weight in weights]
    graph_bytes = len(graph) + sum(len(header) + weight.size_bytes for header, weight in zip(headers, weights, strict=True))
    with path.open("wb") as file:
        file.write(envelope.SerializeToString())
        file.write(_field(ModelProto.GRAPH_FIELD_NUMBER, graph_bytes) + graph)
        for header, weight in zip(headers, weights, strict=True):
            file.write(header)
            file.write(weight.draw(seed).data)
            advance(weight.size_bytes)


def _without_values(weight: SeededWeight) -> TensorProto:
    """Return the tensor of a weight without its values."""
    return TensorProto(name=weight.name, data_type=TensorProto.FLOAT, dims=weight.shape)


def _initializer_field(weight: SeededWeight) -> bytes:
    """Return all of a graph's ``initializer`` field except the values, which follow it."""
    description: bytes = _without_values(weight).SerializeToString()
    tensor = description + _field(TensorProto.RAW_DATA_FIELD_NUMBER, weight.size_bytes)
    return _field(GraphProto.INITIALIZER_FIELD_NUMBER, len(tensor) + weight.size_bytes) + tensor


def _field(number: int, length: int) -> bytes:
    """Return the tag and length of a protobuf field that holds ``length`` bytes (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Return a number as a protobuf varint: seven bits a byte, the lowest first; the eighth bit is set if more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
