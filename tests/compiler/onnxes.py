"""Build small models for the tests of the compiler, and a large one that is mostly a hole in its file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = NDArray[Any]

#: A Gemm of this many rows and columns holds 100 MB of weights.
BIG_SIDE = 5_000


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    """Return a typed input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def weight(name: str, *shape: int, seed: int = 0) -> TensorProto:
    """Return seeded normal float32 weights in raw_data, scaled down by their fan-in."""
    values = np.random.default_rng((seed, len(name))).standard_normal(shape) / math.sqrt(math.prod(shape[1:]) or 1)
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Iterable[TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    functions: Sequence[FunctionProto] = (),
    domains: Iterable[str] = (),
) -> ModelProto:
    """Return a model of these parts."""
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), list(weights))
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def node(kind: str, reads: str, writes: str, name: str | None = None, **attributes: Any) -> NodeProto:
    """Return a node, named after its first output unless ``name`` is given; spaces separate names."""
    outputs = writes.split()
    return helper.make_node(kind, reads.split(), outputs, outputs[0] if name is None else name, **attributes)


def linear(weights: TensorProto | None = None, **options: Any) -> ModelProto:
    """Return one MatMul, x [1, 200] to y [1, 100]; its default weights of 80 kB are large enough to be referenced."""
    return model(
        [node("MatMul", "x w", "y", "fc")],
        [value("x", 1, 200)],
        [value("y", 1, 100)],
        [weight("w", 200, 100) if weights is None else weights],
        **options,
    )


def linear_of(tensor: bytes) -> bytes:
    """Return the file of the model `linear` with a weight in protobuf's wire format."""
    proto = linear()
    del proto.graph.initializer[:]
    graph: bytes = proto.graph.SerializeToString() + field(5, len(tensor)) + tensor
    proto.ClearField("graph")
    return bytes(proto.SerializeToString()) + field(7, len(graph)) + graph


def wide_gemm() -> ModelProto:
    """Return a Gemm with 64 MB of weights between two Relus, x [1, 4000] to y [1, 4000]."""
    return model(
        [node("Relu", "x", "a"), node("Gemm", "a w", "b", transB=1), node("Relu", "b", "y")],
        [value("x", 1, 4_000)],
        [value("y", 1, 4_000)],
        [weight("w", 4_000, 4_000)],
    )


def classifier() -> ModelProto:
    """Return two convolutions, each followed by a pooling, and two Gemms: image [1, 3, 16, 16] to prob [1, 10]."""
    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    half: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    shapes = {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (64, 32, 3, 3), "w3": (300, 1024), "b3": (300,), "w4": (10, 300)}
    return model(
        [
            node("Conv", "image w1 b1", "conv1", **same),
            node("Relu", "conv1", "relu1"),
            node("MaxPool", "relu1", "pool1", **half),
            node("Conv", "pool1 w2", "conv2", **same),
            node("Relu", "conv2", "relu2"),
            node("MaxPool", "relu2", "pool2", **half),
            node("Constant", "", "shape", value=numpy_helper.from_array(np.array([1, 1024]), "ignored")),
            node("Reshape", "pool2 shape", "flat"),
            node("Gemm", "flat w3 b3", "fc1", transB=1),
            node("Relu", "fc1", "relu3"),
            node("Gemm", "relu3 w4", "fc2", transB=1),
            node("Softmax", "fc2", "prob", axis=1),
        ],
        [value("image", 1, 3, 16, 16)],
        [value("prob", 1, 10)],
        [weight(name, *shape) for name, shape in shapes.items()],
    )


def saved(path: Path, proto: ModelProto, data: str | None = None) -> Path:
    """Write a model to ``path``, and its weights to the file ``data`` in the same folder if that is given."""
    if data is None:
        path.write_bytes(proto.SerializeToString())
        return path
    copy = ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def referred(name: str, shape: Sequence[int], entries: Mapping[str, object], kind: int = TensorProto.FLOAT) -> TensorProto:
    """Return a tensor with external data described by ``entries``, even invalid ones."""
    tensor = TensorProto(name=name, dims=shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


def big_model(path: Path, layers: int) -> Path:
    """Write a chain of ``layers`` Gemms of 100 MB of zeros each: holes in a sparse file, which take no time and no disk."""
    names = ["x", *(f"h{index}" for index in range(1, layers)), "y"]
    graph = GraphProto(name="big")
    for index in range(layers):
        graph.node.append(node("Gemm", f"{names[index]} w{index}", names[index + 1], f"fc{index}", transB=1))
    graph.input.append(value("x", 1, BIG_SIDE))
    graph.output.append(value("y", 1, BIG_SIDE))
    head = graph.SerializeToString()
    hole = 4 * BIG_SIDE**2
    tensors = []
    for index in range(layers):
        tensor = TensorProto(name=f"w{index}", dims=[BIG_SIDE, BIG_SIDE], data_type=TensorProto.FLOAT).SerializeToString()
        tensor += field(9, hole)
        tensors.append(field(5, len(tensor) + hole) + tensor)
    whole = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString()
    with path.open("wb") as stream:
        stream.write(whole + field(7, len(head) + sum(map(len, tensors)) + layers * hole) + head)
        for tensor in tensors:
            stream.write(tensor)
            stream.seek(hole, 1)
        stream.truncate(stream.tell())
    return path


def field(number: int, length: int) -> bytes:
    """Return a protobuf field's tag and length (wire type 2), without its content."""
    return varint(number << 3 | 2) + varint(length)


def varint(number: int) -> bytes:
    """Return a base-128 varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
