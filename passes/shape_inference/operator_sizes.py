"""Find the sizes of a model's inputs that its first operators insist on: onnx infers shapes without looking at these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import NodeProto, helper

from hyps.passes.weights import Model

#: Operators whose first input and output have one shape, as far as their other inputs are constants or absent.
_KEEP_SHAPES = frozenset(
    {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout", "Identity", "LayerNormalization", "Mul", "QuantizeLinear"}
    | {"Relu", "Sub"}
)


def operator_sizes(model: Model) -> dict[tuple[str, int], int]:
    """Return, by input and position, the sizes that constant weights fix: the channels of a Conv, the columns of a MatMul.

    A position is negative where it counts from the last dimension.
    """
    graph = model.proto.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sources = {value.name: value.name for value in graph.input}
    found: dict[tuple[str, int], int] = {}
    for node in graph.node:
        read = [name for name in node.input if name in sources]
        if not read:
            continue
        for name, position, size in _insisted(node, constants):
            if name in sources:
                found.setdefault((sources[name], position), size)
        others = [name for name in node.input if name and name != read[0]]
        if node.op_type in _KEEP_SHAPES and all(name in constants for name in others):
            sources[node.output[0]] = sources[read[0]]
    return found


def _insisted(node: NodeProto, constants: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int, int]]:
    """Yield (tensor, position, size) for what an operator reads next to its constant weights."""
    shapes = [constants.get(name) for name in node.input[:3]]
    options = {each.name: helper.get_attribute_value(each) for each in node.attribute if each.name in ("group", "transB")}
    match node.op_type, shapes:
        case "Conv", [None, [_, channels, *_], *_]:
            yield node.input[0], 1, channels * int(options.get("group", 1))
        case "BatchNormalization", [None, [channels], *_]:
            yield node.input[0], 1, channels
        case "MatMul", [None, [*_, rows, _]]:
            yield node.input[0], -1, rows
        case "Gemm", [None, [rows, columns], *_]:
            yield node.input[0], -1, columns if options.get("transB") else rows
        case (("LSTM" | "GRU" | "RNN"), [None, [_, _, size], *_]):
            yield node.input[0], -1, size
