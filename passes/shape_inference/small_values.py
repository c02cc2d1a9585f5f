"""Compute the small integers and booleans of a model that follow from shapes and constants: lengths, counts, conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.passes.weights import REFERENCE_BYTES

Value = NDArray[Any]

#: The operators that are computed: exact on integers and booleans, with any implementation.
COMPUTED = frozenset(
    {"Add", "And", "Cast", "Concat", "Equal", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mul", "Not", "Or"}
    | {"GreaterOrEqual", "LessOrEqual", "ReduceMax", "ReduceMin", "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub"}
    | {"ConstantOfShape", "Transpose", "Unsqueeze", "Where"}
)


class SmallValues:
    """The values of a model's tensors that are small and depend on shapes and constants alone, where they are asked for."""

    def __init__(self, proto: ModelProto, types: Mapping[str, TypeProto], referenced: Iterable[str]) -> None:
        self.proto = proto
        self._types = types
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._referenced = frozenset(referenced)
        self._places = {name: place for place, node in enumerate(proto.graph.node) for name in node.output if name}

    def values(self, names: Iterable[str]) -> dict[str, Value]:
        """Return the values of those of ``names`` that are known."""
        found: dict[str, Value] = {}
        places: set[int] = set()
        seen: set[str] = set()
        pending = list(names)
        wanted = set(pending)
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self._constants:
                constant = small_constant(self._constants[name]) if name not in self._referenced else None
                found |= {} if constant is None else {name: constant}
            elif name in self._places:
                place = self._places[name]
                places.add(place)
                node = self.proto.graph.node[place]
                pending += node.input if node.op_type in COMPUTED and node.domain in STANDARD_DOMAINS else ()
        for place in sorted(places):
            node = self.proto.graph.node[place]
            value = small_value(self.proto, node, self._types, found)
            found |= {} if value is None else {node.output[0]: value}
        return {name: value for name, value in found.items() if name in wanted}


def small_constant(tensor: TensorProto) -> Value | None:
    """Return the values of a constant that is held in the model and small."""
    return numpy_helper.to_array(tensor) if tensor.ByteSize() < REFERENCE_BYTES else None


def small_value(
    proto: ModelProto, node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, Value]
) -> Value | None:
    """Return the value of a node's output where it is small and follows from known types and values."""
    if node.op_type == "Constant":
        tensor = next((attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR), None)
        return None if tensor is None else small_constant(tensor)
    if node.op_type in ("Shape", "Size") and not node.attribute:
        shape = fixed_shape(types.get(node.input[0]))
        if shape is not None:
            return np.array(shape if node.op_type == "Shape" else np.prod(shape), np.int64)
    if node.op_type not in COMPUTED or any(name and name not in values for name in node.input):
        return None
    feeds = {name: values[name] for name in node.input if name}
    if any(array.dtype.kind not in "iub" for array in feeds.values()):
        return None
    if node.op_type == "ConstantOfShape" and not 0 <= math.prod(feeds[node.input[0]].tolist()) <= REFERENCE_BYTES:
        return None
    results = evaluated(proto, [node], feeds, node.output[:1])
    return None if results is None else results[0]


def evaluated(
    proto: ModelProto, nodes: Iterable[NodeProto], feeds: Mapping[str, Value], outputs: Iterable[str]
) -> list[Value] | None:
    """Return what ``nodes``, operators of ``proto``, compute from ``feeds``; None where they cannot."""
    from onnx.reference import ReferenceEvaluator  # few models need it

    graph = helper.make_graph(
        list(nodes),
        "value",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
    try:
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, dict(feeds))]
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError):  # onnxruntime will say what is wrong
        return None


def fixed_shape(kind: TypeProto | None) -> list[int] | None:
    """Return the shape of a tensor type, if all of it is known."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dimensions = kind.tensor_type.shape.dim
    return [dim.dim_value for dim in dimensions] if all(dim.HasField("dim_value") for dim in dimensions) else None
