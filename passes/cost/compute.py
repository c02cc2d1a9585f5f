"""Estimate how long each operator computes, by its multiply-adds and the bytes that it moves.

The estimate is a roofline, the longest of three times: computing the multiply-adds at the device's rate, reading the weights
at the rate of a product of one row, and reading and writing the tensors at the memory's rate. Multiply-adds are counted as
in the literature on networks: a multiplication with its addition is one, and biases are not counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.row_reads import row_read
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.onnx_ops import FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS, Shape

SecondsArray = NDArray[np.float64]


def compute_s(graph: Graph, device: DeviceRates) -> SecondsArray:
    """Return the estimated seconds of every operator, in execution order, with its weights in memory."""
    return np.array([_seconds(graph, operator, device) for operator in graph.operators], np.float64)


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


def _seconds(graph: Graph, operator: Operator, device: DeviceRates) -> float:
    moved = sum(graph.tensors[name].nbytes for name in (*operator.inputs, *operator.outputs))
    moving = moved / device.memory_bytes_per_s
    if (rows := row_read(graph, operator)) is not None:
        return moving + rows.read_bytes / device.storage_bytes_per_s
    macs = multiply_adds(graph, operator)
    if not macs:
        return moving
    weights = sum(graph.weights[name].nbytes for name in operator.weights)
    reading = weights / device.gemv_bytes_per_s if operator.op_type in FLOAT_PRODUCTS else 0.0
    return max(macs / device.conv_macs_per_s, reading, moving)


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
