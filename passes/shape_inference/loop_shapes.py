"""Find the shapes of the states of a Loop: the values that it carries from one iteration to the next.

By its specification a Loop may change them in every iteration, so neither onnx nor onnxruntime infers them. Where the body
declares the shape that a state starts with, the state keeps it: the Loop's output has that shape after any number of
iterations, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import ModelProto, NodeProto, ValueInfoProto

from hyps.passes.graph import subgraphs
from hyps.passes.onnx_ops import STANDARD_DOMAINS
from hyps.runtime.bundle.records.tensors import OBSERVED


def observed(proto: ModelProto) -> dict[str, ValueInfoProto]:
    """Return the tensors whose shapes were observed, by name, with these shapes."""
    return {value.name: value for value in proto.graph.value_info if value.name.endswith(OBSERVED)}


def carried(proto: ModelProto) -> dict[str, ValueInfoProto]:
    """Return the outputs of loops that are states of a declared shape, by name, as the bodies declare them."""
    return {output: ValueInfoProto(name=output, type=declared.type) for _, output, declared in _states(proto)}


def changing(proto: ModelProto, known: Mapping[str, ValueInfoProto]) -> set[str]:
    """Return the names of those of `carried` that do not start with the shape that the body declares."""
    typed = {value.name: value for value in proto.graph.input} | dict(known)
    constants = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    changed = set()
    for start, output, declared in _states(proto):
        shape = constants[start] if start in constants else _shape(typed[start]) if start in typed else None
        if shape != _shape(declared):
            changed.add(output)
    return changed


def _states(proto: ModelProto) -> Iterator[tuple[str, str, ValueInfoProto]]:
    """Yield (start, output, declaration in the body) of every state of fixed size."""
    for node in proto.graph.node:
        if node.op_type == "Loop" and node.domain in STANDARD_DOMAINS:
            yield from (state for state in _declared(node) if state[1] and _shape(state[2]) is not None)


def _declared(node: NodeProto) -> Iterator[tuple[str, str, ValueInfoProto]]:
    for body in subgraphs(node):
        yield from zip(node.input[2:], node.output, body.output[1:], strict=False)  # scan outputs follow


def _shape(value: ValueInfoProto) -> list[int] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    return [dim.dim_value for dim in dimensions] if all(dim.HasField("dim_value") for dim in dimensions) else None
