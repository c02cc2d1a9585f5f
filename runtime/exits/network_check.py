"""Check that a learnt policy is a small chain of layers, before onnxruntime sees it.

A file of 100 KB can describe a product with billions of results. So the file's protobuf is walked
(`hyps.runtime.bundle.wire_fields`), and only a chain is let through in which every tensor is [1, n]: each node reads the one
before and weights of the model, and every weight has the shape that the chain allows at its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.wire_fields import message_fields, message_numbers, message_parts

#: The fields of ``onnx.proto`` that are read here, by message.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_KNOWN = 7, 14, {1, 2, 3, 4, 5, 6, 7, 8, 14}
_GRAPH_NODE, _GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_KNOWN = 1, 5, 11, 12, {1, 2, 5, 10, 11, 12, 13}
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBER, _ATTRIBUTE_KNOWN = 1, 3, {1, 2, 3, 13, 20}
_TENSOR_DIMENSION, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_KNOWN = (
    1,
    2,
    4,
    8,
    9,
    {1, 2, 4, 8, 9, 12},
)
_FLOAT = 1
_UNARY = frozenset({"Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "Softmax", "Flatten", "Identity"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_MOST_NODES = 64


class UnsafeNetwork(ValueError):
    """The network is no chain of layers that a policy may have; the message says why."""


@dataclass(frozen=True, slots=True)
class PolicyNetwork:
    """A checked network: the length of its input, and the texts in its metadata."""

    width: int
    metadata: Mapping[str, str]


def check_network(content: bytes, width: int, values: int) -> PolicyNetwork:
    """Return the description of a network from ``state`` [1, width] to ``values`` [1, values].

    Raises `UnsafeNetwork` for any other, and for a file that is no ONNX model.
    """
    try:
        model = memoryview(content)
        _known("model", model, _MODEL_KNOWN)
        (graph,) = message_parts(model, _MODEL_GRAPH)
        metadata = {_text(entry, 1): _text(entry, 2) for entry in message_parts(model, _MODEL_METADATA)}
        _check_graph(graph, width, values)
    except UnsafeNetwork:
        raise
    except (IndexError, KeyError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise UnsafeNetwork(f"it is no ONNX model ({error})") from None
    return PolicyNetwork(width, metadata)


def _check_graph(graph: memoryview, width: int, values: int) -> None:
    _known("graph", graph, _GRAPH_KNOWN)
    stored = [_weight(tensor) for tensor in message_parts(graph, _GRAPH_WEIGHT)]
    weights = dict(stored)
    if len(weights) < len(stored):
        raise UnsafeNetwork("two weights have one name")
    inputs = [name for name in _names(graph, _GRAPH_INPUT) if name not in weights]
    if inputs != ["state"] or _names(graph, _GRAPH_OUTPUT) != ["values"] or "state" in weights:
        raise UnsafeNetwork("it has not one input 'state' and one output 'values'")
    nodes = list(message_parts(graph, _GRAPH_NODE))
    if not 1 <= len(nodes) <= _MOST_NODES:
        raise UnsafeNetwork(f"it has {len(nodes)} operators, and may have {_MOST_NODES}")
    name = "state"
    for node in nodes:
        read = [bytes(each).decode() for each in message_parts(node, _NODE_INPUT)]
        made = [bytes(each).decode() for each in message_parts(node, _NODE_OUTPUT)]
        if read[:1] != [name] or len(made) != 1 or made[0] in weights or any(each not in weights for each in read[1:]):
            raise UnsafeNetwork("its operators are no chain, each with the one before and weights as inputs")
        operator = _text(node, _NODE_OPERATOR) if not _text(node, _NODE_DOMAIN) else "?"
        width = _width_after(operator, _attributes(node), width, [weights[each] for each in read[1:]])
        (name,) = made
    if name != "values" or width != values:
        raise UnsafeNetwork(f"it does not end in 'values' of {values} numbers")


def _width_after(operator: str, attributes: Mapping[str, int], width: int, operands: Sequence[tuple[int, ...]]) -> int:
    """Return the length of what an operator makes of [1, width] with weights of these shapes."""
    if operator in _UNARY and not operands:
        return width
    if operator in _BINARY and len(operands) == 1 and operands[0] in ((), (1,), (1, 1), (width,), (1, width)):
        return width
    if operator in _PRODUCTS and operands and len(operands[0]) == 2 and not attributes.get("transA"):
        matrix = operands[0][::-1] if operator == "Gemm" and attributes.get("transB") else operands[0]
        fits = matrix[0] == width and len(operands) <= (2 if operator == "Gemm" else 1)
        if fits and all(each in ((), (1,), (1, 1), (matrix[1],), (1, matrix[1])) for each in operands[1:]):
            return matrix[1]
    shapes = ", ".join(str(list(each)) for each in operands) or "no weights"
    raise UnsafeNetwork(f"operator {operator[:40]!r} with {shapes} is none that a policy may have on [1, {width}]")


def _attributes(node: memoryview) -> dict[str, int]:
    """Return the whole numbers among a node's attributes; graphs and tensors are refused."""
    found: dict[str, int] = {}
    for attribute in message_parts(node, _NODE_ATTRIBUTE):
        _known("attribute", attribute, _ATTRIBUTE_KNOWN)
        name = _text(attribute, _ATTRIBUTE_NAME)
        if name in found:
            raise UnsafeNetwork(f"an operator has attribute {name[:40]!r} twice")
        found[name] = _number(attribute, _ATTRIBUTE_NUMBER)
    return found


def _weight(tensor: memoryview) -> tuple[str, tuple[int, ...]]:
    """Return a weight's name and shape; its numbers must be in the file, as many as the shape says."""
    _known("weight", tensor, _TENSOR_KNOWN)
    shape = tuple(message_numbers(tensor, _TENSOR_DIMENSION))
    stored = sum(len(part) for field in (_TENSOR_RAW, _TENSOR_FLOATS) for part in message_parts(tensor, field))
    if _number(tensor, _TENSOR_TYPE) != _FLOAT or len(shape) > 2 or stored != 4 * math.prod(shape):
        raise UnsafeNetwork("a weight is no float32 vector or matrix with all its numbers in the file")
    return _text(tensor, _TENSOR_NAME), shape


def _names(graph: memoryview, field: int) -> list[str]:
    return [_text(each, 1) for each in message_parts(graph, field)]


def _text(message: memoryview, field: int) -> str:
    """Return the text in a field that may be there once: protobuf takes the last one, other readers the first."""
    texts = list(message_parts(message, field))
    if len(texts) > 1:
        raise UnsafeNetwork(f"field {field} of ONNX's format is there {len(texts)} times, and may be there once")
    return bytes(texts[0]).decode() if texts else ""


def _number(message: memoryview, field: int) -> int:
    numbers = list(message_numbers(message, field))
    if len(numbers) > 1:
        raise UnsafeNetwork(f"field {field} of ONNX's format is there {len(numbers)} times, and may be there once")
    return numbers[0] if numbers else 0


def _known(what: str, message: memoryview, fields: set[int]) -> None:
    """Raise `UnsafeNetwork` for a message with other fields: functions, graphs in graphs, external data, sparse weights."""
    if unknown := {number for number, _ in message_fields(message)} - fields:
        raise UnsafeNetwork(f"its {what} has field {min(unknown)} of ONNX's format, which no policy needs")
