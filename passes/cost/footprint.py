"""Per operator: the bytes of its weights, inputs, outputs and workspace, in the form onnxruntime holds them.

Method: the recipe of `hyps.runtime.execution.session` (mapped external data, no prepacking, no arena) on onnxruntime 1.31, CPU.
A referenced float weight costs its mapped pages and nothing else. What onnxruntime transforms while it loads (weights that
a fusion or constant folding rewrites, fp16 weights that it widens) costs an anonymous copy too. The convolution's
workspace is that of MLAS (``MlasConvPrepare``): the whole im2col matrix when there are more filters than output positions,
else one small buffer a thread.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hyps.passes.calibration import calibrated_bytes
from hyps.passes.cost.fusion import ACTIVATIONS
from hyps.passes.graph import Graph, Operator
from hyps.passes.weights import REFERENCE_BYTES

Shape = tuple[int, ...]

#: One thread's expansion buffer in a segmented convolution, with what its GEMM packs (floats of 4 bytes).
THREAD_BUFFER_BYTES = calibrated_bytes("thread_buffer_bytes")
#: What a session keeps for one node besides tensors: its definition, kernel and edges.
NODE_BYTES = calibrated_bytes("node_bytes")
#: What an open session keeps besides its nodes and weights.
SESSION_BYTES = calibrated_bytes("session_bytes")

#: Gates of a recurrent operator, and how many of its states onnxruntime keeps while it runs.
_GATES = {"LSTM": (4, 11), "GRU": (3, 6), "RNN": (1, 0)}
#: Types below a byte, which onnxruntime maps itself, beside the buffer into which the whole weights file is read.
_MAPPED_TOO = frozenset({"int4", "uint4", "float4_e2m1fn", "int2", "uint2"})

_ALIASES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
_IN_PLACE = ACTIVATIONS | _ALIASES | {"Add", "Mul", "Sub", "Div", "Sum", "Exp", "Sqrt", "Neg", "Abs"}
_NO_WORKSPACE = _IN_PLACE | frozenset(
    {"Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Split", "Slice"}
    | {"Transpose", "Pad", "BatchNormalization", "Softmax", "LogSoftmax", "Gather", "Constant", "Cast", "Shape"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One operator's bytes. ``reused_bytes`` of its output lie in the buffer of ``reused``, an input that dies there."""

    weight_bytes: int
    copied_bytes: int
    input_bytes: int
    output_bytes: int
    workspace_bytes: int
    reused: str | None
    reused_bytes: int


def footprints(graph: Graph, threads: int) -> Mapping[str, Footprint]:
    """The footprint of every operator when a session computes with ``threads`` threads."""
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    rewritten = _rewritten_weights(graph, readers)
    return {
        operator.name: _footprint(graph, operator, readers, operator.name in rewritten, threads)
        for operator in graph.operators
    }


def mapped_bytes(nbytes: int) -> int:
    """What a weight holds resident: its part of the file; a small one lies inside the model and is held twice."""
    return file_bytes(nbytes) if nbytes >= REFERENCE_BYTES else 2 * nbytes


def file_bytes(nbytes: int) -> int:
    """What a weight takes of its file, which is read as a whole: each starts at a multiple of `REFERENCE_BYTES`."""
    return -(-nbytes // REFERENCE_BYTES) * REFERENCE_BYTES


def copied_bytes(graph: Graph, operator: Operator, rewritten: bool) -> int:
    """Anonymous copies that onnxruntime makes of an operator's weights while it loads."""
    weights = [graph.weights[name] for name in operator.weights]
    total = 2 * operator.embedded_bytes + sum(
        2 * weight.nbytes for weight in weights if weight.dtype in {"float16", "bfloat16"}
    )
    total += sum(weight.nbytes for weight in weights if weight.dtype in _MAPPED_TOO and weight.nbytes >= REFERENCE_BYTES)
    if not operator.inputs:  # constant folding: the results become weights too
        total += sum(graph.tensors[name].nbytes for name in operator.outputs)
    if rewritten:
        total += sum(weight.nbytes for weight in weights)
    return total


def _footprint(graph: Graph, operator: Operator, readers: Counter[str], rewritten: bool, threads: int) -> Footprint:
    inputs = {name: graph.tensors[name].nbytes for name in operator.inputs}
    outputs = sum(graph.tensors[name].nbytes for name in operator.outputs)
    reused, reused_bytes = None, 0
    if operator.op_type in _IN_PLACE:
        fitting = [name for name, size in inputs.items() if readers[name] == 1 and size == outputs]
        reused, reused_bytes = (fitting[0], outputs) if fitting else (None, 0)
    return Footprint(
        weight_bytes=sum(mapped_bytes(graph.weights[name].nbytes) for name in operator.weights),
        copied_bytes=copied_bytes(graph, operator, rewritten),
        input_bytes=sum(inputs.values()),
        output_bytes=outputs,
        workspace_bytes=_workspace_bytes(graph, operator, sum(inputs.values()) + outputs, threads),
        reused=reused,
        reused_bytes=reused_bytes,
    )


def _workspace_bytes(graph: Graph, operator: Operator, activation_bytes: int, threads: int) -> int:
    kind = operator.op_type
    if kind in {"Conv", "FusedConv", "ConvTranspose"} and operator.weights and operator.inputs:
        kernel = graph.weights[operator.weights[0]].shape
        source, result = graph.tensors[operator.inputs[0]].shape, graph.tensors[operator.outputs[0]].shape
        if len(kernel) < len(source):  # only the bias is constant, the kernel is computed
            kernel = graph.tensors[operator.inputs[1]].shape
        return convolution_bytes(kind, kernel, source, result, threads)
    if kind in _GATES:
        return activation_bytes + _recurrent_bytes(graph, operator)
    return 0 if kind in _NO_WORKSPACE else activation_bytes


def _recurrent_bytes(graph: Graph, operator: Operator) -> int:
    """The gates of all positions, some states, and for the reverse direction the input and the output once more.

    Measured on LSTM, GRU and RNN of one and two directions; of batches, at most (``test_workspace.py``).
    """
    *_, directions, batch, hidden = graph.tensors[operator.outputs[0]].shape
    inputs = max((graph.tensors[name].shape for name in operator.inputs), key=math.prod, default=(1, 1, 1))
    positions, width = math.prod(inputs[:-1]), inputs[-1]
    gates, states = _GATES[operator.op_type]
    one = positions * gates * hidden + batch * (states * hidden + 1)
    return 4 * (directions * one + positions * (width + hidden))


def convolution_bytes(kind: str, kernel: Shape, source: Shape, result: Shape, threads: int) -> int:
    """The workspace of a float convolution of these shapes."""
    if kind == "ConvTranspose":
        return 4 * math.prod(kernel[1:]) * math.prod(source[2:])
    positions, taps = math.prod(result[2:]), math.prod(kernel[1:])
    if math.prod(kernel[2:]) == 1 and source[2:] == result[2:]:
        return THREAD_BUFFER_BYTES  # pointwise: a GEMM on the input itself
    filters = kernel[0] * kernel[1] // source[1]  # filters of one group
    if filters > positions:
        return 4 * positions * taps + THREAD_BUFFER_BYTES
    return threads * THREAD_BUFFER_BYTES


def _rewritten_weights(graph: Graph, readers: Counter[str]) -> frozenset[str]:
    """Operators whose weights a load-time fusion rewrites: a lone BatchNormalization, Mul or Add by weights follows."""
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    followed = set()
    for operator in graph.operators:
        before = writer.get(operator.inputs[0]) if operator.inputs else None
        if before is None or readers[operator.inputs[0]] != 1:
            continue
        convolves = before.op_type in {"Conv", "ConvTranspose"}
        normalised = operator.op_type == "BatchNormalization" and (convolves or before.op_type == "MatMul")
        if normalised or (convolves and operator.op_type in {"Mul", "Add"} and operator.weights):
            followed.add(before.name)
    return frozenset(followed)
