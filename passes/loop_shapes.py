"""The shapes of what a Loop carries from round to round, which may change by its specification and seldom do.

Neither onnx nor onnxruntime infers them. Where the body declares for a state the shape that it starts with, it keeps that
in every round, and there may be none at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import ModelProto, NodeProto, ValueInfoProto

from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS


def carried(proto: ModelProto) -> dict[str, ValueInfoProto]:
    """The outputs of loops that are states, as their bodies declare them."""
    found = {}
    for _, output, declared in _states(proto):
        found[output] = ValueInfoProto(name=output, type=declared.type)
    return found


def changing(proto: ModelProto, known: Mapping[str, ValueInfoProto]) -> set[str]:
    """Those of `carried` that do not start with the shape that the body declares."""
    typed = {value.name: value for value in proto.graph.input} | dict(known)
    constants = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    found = set()
    for start, output, declared in _states(proto):
        shape = constants[start] if start in constants else _shape(typed[start]) if start in typed else None
        if shape != _shape(declared):
            found.add(output)
    return found


def _states(proto: ModelProto) -> Iterator[tuple[str, str, ValueInfoProto]]:
    """(start, output, declaration in the body) of every state of fixed size."""
    for node in proto.graph.node:
        if node.op_type == "Loop" and node.domain in STANDARD_DOMAINS:
            yield from (state for state in _of(node) if state[1] and _shape(state[2]) is not None)


def _of(node: NodeProto) -> Iterator[tuple[str, str, ValueInfoProto]]:
    for body in subgraphs(node):
        yield from zip(node.input[2:], node.output, body.output[1:], strict=False)  # scan outputs follow


def _shape(value: ValueInfoProto) -> list[int] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    return [dim.dim_value for dim in dimensions] if all(dim.HasField("dim_value") for dim in dimensions) else None
