"""Rules for computing operators some rows at a time, bit for bit.

Measured on onnxruntime 1.31, x86-64, against the whole operator with 1, 2 and 4 threads (tests/passes/tiling/test_tiles.py):

- MLAS multiplies a convolution's filters with columns, one for each output position. A tile has fewer columns than the
  whole, so it needs enough of them for the sums to be added up in the same order (`hyps.passes.mlas.least_columns`).
- A sum of two convolutions is left out: onnxruntime fuses it with one of them, and may choose the other one in a tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from onnx import NodeProto, TensorProto, numpy_helper

from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.mlas import POSITION_INDEPENDENT, least_columns
from hyps.passes.onnx_ops import attributes_of, is_auto_padded, spatial_dilations, spatial_pads
from hyps.passes.receptive_field import SlidingWindow, row_window
from hyps.passes.tiling.rules import ROWS, TilingRule, elementwise_rule
from hyps.passes.weights import Model


def row_rules(model: Model, graph: Graph, nodes: Mapping[str, NodeProto], threads: int) -> Mapping[str, TilingRule]:
    """Return the rules of those operators among ``nodes`` that can be tiled along the rows, by operator name.

    A session has up to ``threads`` threads.
    """
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer if tensor.name not in model.weights}
    refused = set(_sums_of_convolutions(graph))
    rules = {}
    for operator in graph.operators:
        if operator.name in nodes and operator.name not in refused and _has_rows(graph.tensors[operator.outputs[0]]):
            rule = _rule(graph, operator, nodes[operator.name], constants, threads)
            if rule is not None:
                rules[operator.name] = rule
    return rules


def _sums_of_convolutions(graph: Graph) -> Iterator[str]:
    """Yield the names of operators in fusion groups that hold more than one convolution."""
    for group in fusion_groups(graph):
        members = [graph.operators[index] for index in group]
        if sum(member.op_type == "Conv" for member in members) > 1:
            yield from (member.name for member in members)


def _has_rows(tensor: Tensor) -> bool:
    return len(tensor.shape) > ROWS and tensor.shape[ROWS] > 1


def _rule(
    graph: Graph, operator: Operator, node: NodeProto, constants: Mapping[str, TensorProto], threads: int
) -> TilingRule | None:
    attributes, kind = attributes_of(node), operator.op_type
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if kind == "Conv":
        if len(operator.inputs) != 1 or node.input[0] != operator.inputs[0]:
            return None  # the kernel is computed
        kernel = graph.weights[node.input[1]].shape
        return _sliding_rule(source, result, attributes, kernel[2:], _least_rows(kernel, result, threads))
    if kind in {"MaxPool", "AveragePool"}:
        return _sliding_rule(source, result, attributes, tuple(attributes["kernel_shape"]), 1)
    if kind == "Pad":
        return _padding_rule(node, source, attributes, constants)
    if kind == "BatchNormalization":
        infers = not attributes.get("training_mode") and attributes.get("spatial", 1) and len(operator.inputs) == 1
        return TilingRule() if infers else None
    if kind == "Concat":
        axis = attributes["axis"] % len(result.shape)
        return TilingRule() if axis == 1 and not operator.weights else None
    return elementwise_rule(graph, operator, ROWS) if kind in POSITION_INDEPENDENT else None


def _sliding_rule(
    source: Tensor, result: Tensor, attributes: Mapping[str, Any], kernel: tuple[int, ...], least_rows: int
) -> TilingRule | None:
    """Return the rule of a Conv or a pooling; None where a tile cannot have its padding, or it has too few rows."""
    axes, sizes = len(kernel), source.shape[ROWS:]
    if is_auto_padded(attributes) and set(spatial_dilations(attributes, axes)) != {1}:
        return None
    pads = spatial_pads(attributes, kernel, sizes)
    window = replace(
        row_window(attributes, kernel, sizes),
        max_pad=kernel[0] - 1,
        counts_padding=bool(attributes.get("count_include_pad", 0)),
    )
    rows = result.shape[ROWS]
    rows_of_ceil_mode = rows - window.output_height(source.shape[ROWS])
    if min(pads) < 0 or rows < least_rows or rows_of_ceil_mode not in ((0, 1) if attributes.get("ceil_mode") else (0,)):
        return None
    return TilingRule(window=window, pads=pads, min_extent=least_rows)


def _padding_rule(
    node: NodeProto, source: Tensor, attributes: Mapping[str, Any], constants: Mapping[str, TensorProto]
) -> TilingRule | None:
    """Return the rule of a Pad by a constant: a window of one tap that reads padding.

    The amounts are an attribute before opset 11, then an input.
    """
    if attributes.get("mode", "constant") != "constant" or (len(node.input) > 3 and node.input[3]):
        return None
    if len(node.input) > 1 and node.input[1] not in constants:
        return None
    amounts = numpy_helper.to_array(constants[node.input[1]]) if len(node.input) > 1 else attributes["pads"]
    pads = tuple(int(amount) for amount in amounts)
    window = SlidingWindow(pads=(pads[ROWS], pads[len(source.shape) + ROWS]))
    return TilingRule(window=window, pads=pads) if min(pads) >= 0 else None


def _least_rows(kernel: tuple[int, ...], result: Tensor, threads: int) -> int:
    """Return the fewest rows with which a tile of a convolution keeps the whole's bits."""
    columns_per_row = max(1, math.prod(result.shape[ROWS + 1 :]))
    return -(-least_columns(math.prod(kernel[1:]), threads) // columns_per_row)
