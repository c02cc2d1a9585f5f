"""Estimate how long each operator computes, by its multiply-adds and the bytes that it moves.

The estimate is a roofline, the longest of three times: computing the multiply-adds at the device's rate, reading the weights
at the rate of a product of one row, and reading and writing the tensors at the memory's rate. A depthwise convolution has a
rate of its own: onnxruntime computes it as products of one row. A recurrent operator is a product of one row at each step of
its sequence. An activation that onnxruntime fuses into the operator before takes no time. To find and clear the pages of
results takes more (`hyps.passes.cost.tiers`).

Multiply-adds are counted as in the literature on networks: a multiplication with its addition is one, and biases are not
counted.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.fusion import FUSED_ACTIVATIONS
from hyps.passes.cost.row_reads import row_read
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.mlas import RECURRENT_GATES
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS, RESHAPES, Shape

SecondsArray = NDArray[np.float64]


def compute_s(graph: Graph, device: DeviceRates) -> SecondsArray:
    """Return the estimated seconds of every operator, in execution order, with its weights in memory."""
    writers = {name: operator for operator in graph.operators for name in operator.outputs}
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    return np.array(
        [
            0.0 if _is_fused(operator, writers, readers) else _seconds(graph, operator, device)
            for operator in graph.operators
        ],
        np.float64,
    )


def multiply_adds(graph: Graph, operator: Operator) -> int:
    """Return the multiply-adds of a Conv, ConvTranspose, Gemm or MatMul (ONNX operator specification); 0 for any other."""
    if operator.op_type in FLOAT_PRODUCTS:
        result, operands = _tensor(graph, operator.outputs[0]), [*operator.inputs, *operator.weights]
        return math.prod(result.shape) * _depth(result.shape, [_tensor(graph, name).shape for name in operands])
    if operator.op_type not in FLOAT_CONVOLUTIONS or not operator.inputs:
        return 0
    kernel = _kernel(graph, operator)
    positions = operator.inputs[0] if operator.op_type == "ConvTranspose" else operator.outputs[0]
    return math.prod(_tensor(graph, positions).shape) * math.prod(kernel[1:])


def _is_fused(operator: Operator, writers: Mapping[str, Operator], readers: Counter[str]) -> bool:
    """Return whether onnxruntime computes an activation as part of the operator before it."""
    before = writers.get(operator.inputs[0]) if len(operator.inputs) == 1 else None
    if before is None or readers[operator.inputs[0]] != 1:
        return False
    return operator.op_type in FUSED_ACTIVATIONS.get(before.op_type, frozenset())


def _seconds(graph: Graph, operator: Operator, device: DeviceRates) -> float:
    moved = sum(graph.tensors[name].nbytes for name in (*operator.inputs, *operator.outputs))
    moving = moved / device.memory_bytes_per_s
    if (rows := row_read(graph, operator)) is not None:
        return moving + rows.read_bytes / device.storage_bytes_per_s
    if operator.op_type in RESHAPES:
        return 0.0
    macs = multiply_adds(graph, operator)
    weights = sum(graph.weights[name].nbytes for name in operator.weights)
    if operator.op_type in RECURRENT_GATES and operator.inputs:  # reads its weights at every step of the sequence
        return moving + graph.tensors[operator.inputs[0]].shape[0] * weights / device.gemv_bytes_per_s
    if not macs:
        return moving
    reading = weights / device.gemv_bytes_per_s if operator.op_type in FLOAT_PRODUCTS else 0.0
    rate = device.depthwise_macs_per_s if _is_depthwise(graph, operator) else device.conv_macs_per_s
    return max(macs / rate, reading, moving)


def _is_depthwise(graph: Graph, operator: Operator) -> bool:
    """Return whether every channel of a convolution's input has filters of its own."""
    if operator.op_type not in FLOAT_CONVOLUTIONS or not operator.inputs:
        return False
    kernel, source = _kernel(graph, operator), graph.tensors[operator.inputs[0]].shape
    return len(kernel) > 1 and len(source) > 1 and kernel[1] == 1 and source[1] > 1


def _kernel(graph: Graph, operator: Operator) -> Shape:
    """Return the shape of a convolution's kernel, [M, C/group, ...] (transposed: [C, M/group, ...]); weight or input."""
    rank = len(graph.tensors[operator.inputs[0]].shape)
    shapes = (_tensor(graph, name).shape for name in (*operator.weights, *operator.inputs[1:]))
    return next((shape for shape in shapes if len(shape) == rank), ())


def _depth(result: Shape, operands: Iterable[Shape]) -> int:
    """Return the length K of the sums of a product [..., M, K] x [..., K, N] = ``result``; 0 when no two operands fit.

    Either operand may be transposed or a vector. The graph view does not say which operand stands where, so the shapes must
    tell.
    """
    columns = result[-1] if result else 1
    rows = result[-2] if len(result) > 1 else 1
    shapes = [shape[-2:] for shape in operands]
    pairs = itertools.chain(itertools.permutations(shapes, 2), zip(shapes, shapes, strict=True))
    for left, right in pairs:
        for depth in left[::-1]:
            if rows * depth == math.prod(left) and columns * depth == math.prod(right) and depth in right:
                return depth
    return 0


def _tensor(graph: Graph, name: str) -> Tensor:
    return graph.weights[name] if name in graph.weights else graph.tensors[name]
