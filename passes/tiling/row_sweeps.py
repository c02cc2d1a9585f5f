"""Which operators can be computed some rows at a time, bit for bit, and what each reads.

Measured on onnxruntime 1.31, x86-64, against the whole operator with 1, 2 and 4 threads (tests/passes/tiling/test_tiles.py):

- MLAS multiplies the filters with columns, one for each output position. With a single column, or where the sum is longer
  than 128 and a thread has 64 columns or fewer, it adds up in another order (``MlasConvOperation``: the blocks of the sum
  grow as columns become few). So a tile has at least as many columns as keep every thread above that: 65 for one thread.
  Whether the im2col matrix is made at once or in segments changes no bit by itself.
- A sum of two convolutions is left out: onnxruntime joins it to one of them and may choose the other one in a tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnx import NodeProto, helper, numpy_helper

from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.tiling.rows import Window
from hyps.passes.tiling.sweep import ELEMENTWISE, ROWS, Sweep, elementwise
from hyps.passes.weights import Model

#: Sums longer than this are added up in blocks, whose length depends on the columns unless there are more than the second.
_BLOCK_DEPTH, _BLOCK_COLUMNS, _THREAD_STEP = 128, 64, 16


def row_sweeps(model: Model, graph: Graph, nodes: Mapping[str, NodeProto], threads: int) -> Mapping[str, Sweep]:
    """Those of the operators ``nodes`` that can be tiled along the rows when a session has up to so many threads."""
    constants = {tensor.name: tensor for tensor in model.proto.graph.initializer if tensor.name not in model.weights}
    joined = set()
    for group in fusion_groups(graph):
        if sum(graph.operators[index].op_type == "Conv" for index in group) > 1:
            joined |= {graph.operators[index].name for index in group}
    found = {}
    for operator in graph.operators:
        if operator.name in nodes and operator.name not in joined and _has_rows(graph.tensors[operator.outputs[0]]):
            sweep = _sweep(graph, operator, nodes[operator.name], constants, threads)
            if sweep is not None:
                found[operator.name] = sweep
    return found


def _has_rows(tensor: Tensor) -> bool:
    return len(tensor.shape) > ROWS and tensor.shape[ROWS] > 1


def _sweep(graph: Graph, operator: Operator, node: NodeProto, constants: Mapping[str, Any], threads: int) -> Sweep | None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kind = operator.op_type
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if kind == "Conv":
        if len(operator.inputs) != 1 or node.input[0] != operator.inputs[0]:
            return None  # the kernel is computed
        kernel = graph.weights[node.input[1]].shape
        return _sliding(source, result, attributes, kernel[2:], _least_rows(kernel, result, threads))
    if kind in {"MaxPool", "AveragePool"}:
        return _sliding(source, result, attributes, tuple(attributes["kernel_shape"]), 1)
    if kind == "Pad":
        return _padding(node, source, attributes, constants)
    if kind == "BatchNormalization":
        plain = not attributes.get("training_mode") and attributes.get("spatial", 1) and len(operator.inputs) == 1
        return Sweep() if plain else None
    if kind == "Concat":
        along = attributes["axis"] % len(result.shape)
        return Sweep() if along == 1 and not operator.weights else None
    return elementwise(graph, operator, ROWS) if kind in ELEMENTWISE else None


def _sliding(
    source: Tensor, result: Tensor, attributes: Mapping[str, Any], kernel: tuple[int, ...], least_rows: int
) -> Sweep | None:
    """A Conv or a pooling (ONNX operator specification: kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)."""
    axes = len(kernel)
    strides, dilations = (tuple(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    mode = attributes.get("auto_pad", b"NOTSET").decode() or "NOTSET"
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        if set(dilations) != {1}:
            return None
        spans = zip(kernel, strides, source.shape[ROWS:], result.shape[ROWS:], strict=True)
        total = [max(0, (after - 1) * stride + taps - before) for taps, stride, before, after in spans]
        half = [pad // 2 if mode == "SAME_UPPER" else pad - pad // 2 for pad in total]
        pads = (*half, *(pad - first for pad, first in zip(total, half, strict=True)))
    else:
        pads = tuple(attributes.get("pads", [0] * 2 * axes)) if mode == "NOTSET" else (0,) * 2 * axes
    window = Window(
        kernel=kernel[0],
        stride=strides[0],
        dilation=dilations[0],
        pads=(pads[0], pads[axes]),
        most_pads=kernel[0] - 1,
        counted=bool(attributes.get("count_include_pad", 0)),
    )
    rows, height = result.shape[ROWS], window.height(source.shape[ROWS])
    if min(pads) < 0 or rows < least_rows or rows - height not in ((0, 1) if attributes.get("ceil_mode") else (0,)):
        return None
    return Sweep(window=window, pads=pads, least=least_rows)


def _padding(node: NodeProto, source: Tensor, attributes: Mapping[str, Any], constants: Mapping[str, Any]) -> Sweep | None:
    """A Pad by a constant, a window of one that sees padding; its amounts are an attribute (opset < 11) or an input."""
    if attributes.get("mode", b"constant") != b"constant" or (len(node.input) > 3 and node.input[3]):
        return None
    if len(node.input) > 1 and node.input[1] not in constants:
        return None
    amounts = numpy_helper.to_array(constants[node.input[1]]) if len(node.input) > 1 else attributes["pads"]
    pads = tuple(int(amount) for amount in amounts)
    rank = len(source.shape)
    return Sweep(window=Window(pads=(pads[ROWS], pads[rank + ROWS])), pads=pads) if min(pads) >= 0 else None


def _least_rows(kernel: tuple[int, ...], result: Tensor, threads: int) -> int:
    """The rows that a tile of a convolution needs for its bits to be the whole's; see the module."""
    columns = 2
    if math.prod(kernel[1:]) > _BLOCK_DEPTH:
        columns = threads * (_BLOCK_COLUMNS + 1 + _THREAD_STEP * (threads - 1))
    return -(-columns // max(1, math.prod(result.shape[ROWS + 1 :])))
