"""Compute the footprint of every operator: the bytes of its weights, inputs, outputs and workspace in onnxruntime.

Method: the recipe of `hyps.runtime.execution.session` (mapped external data, no prepacking, no arena) on onnxruntime 1.31,
CPU. A referenced float weight costs its mapped pages and nothing else. A weight that onnxruntime transforms while it
loads (rewritten by a fusion or constant folding, or widened from fp16) costs an anonymous copy, too. Workspaces are those of
onnxruntime's kernels (`hyps.passes.mlas`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.passes.cost.folding import constant_operators, unfolded_operators
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.mlas import IN_PLACE, NO_WORKSPACE, RECURRENT_GATES, convolution_bytes, recurrent_bytes
from hyps.passes.onnx_ops import CLASSICAL_DOMAIN, FLOAT_CONVOLUTIONS
from hyps.passes.weights import REFERENCE_BYTES
from hyps.runtime.bundle.records.files import ROW_INDEX_BYTES, ROW_READ_BYTES

#: What a session keeps for one node besides tensors: its definition, kernel and edges.
NODE_BYTES = calibrated_bytes("node_bytes")
#: What a session keeps for one weight besides its elements: its definition, name and value.
INITIALIZER_BYTES = calibrated_bytes("initializer_bytes")
#: What a session needs more for a MatMul of three or more dimensions and an Add, which it fuses: a Gemm and two Reshapes.
FUSED_MATMUL_BYTES = calibrated_bytes("fused_matmul_bytes")
#: What an open session keeps besides its nodes and weights.
SESSION_BYTES = calibrated_bytes("session_bytes")

#: A small weight starts at a multiple of this in a weights file.
PACKED_BYTES = 64
#: The constant for an operator's attributes, where it has one of its own. onnxruntime turns a TreeEnsemble, whose nodes are
#: tensors, into the older and longer form first.
_COPIES = {
    f"{CLASSICAL_DOMAIN}.TreeEnsemble": "tree_tensors_copies",
    f"{CLASSICAL_DOMAIN}.TreeEnsembleClassifier": "trees_copies",
    f"{CLASSICAL_DOMAIN}.TreeEnsembleRegressor": "trees_copies",
}

#: Types smaller than a byte. onnxruntime maps such weights itself, in addition to the buffer that holds the weights file.
_MAPPED_TWICE = frozenset({"int4", "uint4", "float4_e2m1fn", "int2", "uint2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One operator's bytes.

    ``in_place_bytes`` of its output reuse the buffer of ``in_place_input``, an input that nothing reads later.
    """

    weight_bytes: int
    copied_bytes: int
    input_bytes: int
    output_bytes: int
    workspace_bytes: int
    in_place_input: str | None
    in_place_bytes: int


def footprints(graph: Graph, threads: int) -> Mapping[str, Footprint]:
    """Return the footprint of every operator when a session computes with ``threads`` threads."""
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    rewritten, fused = _rewritten_weights(graph, readers), _fused_matmuls(graph, readers)
    unfolded = unfolded_operators(graph)
    folded = constant_operators(graph) - unfolded
    found = {}
    for operator in graph.operators:
        one = _footprint(graph, operator, readers, operator.name in rewritten, threads)
        if operator.name in unfolded:
            one = replace(one, copied_bytes=0, in_place_input=None, in_place_bytes=0)
        elif operator.name in folded and max(graph.tensors[name].nbytes for name in operator.outputs) >= REFERENCE_BYTES:
            one = _folded(one, operator)
        if operator.name in fused:
            one = replace(one, copied_bytes=one.copied_bytes + FUSED_MATMUL_BYTES)
        found[operator.name] = one
    return found


def _folded(footprint: Footprint, operator: Operator) -> Footprint:
    """Return the footprint of an operator with a large result that is folded while the session opens.

    All results stay until everything is folded, and onnxruntime 1.23 holds up to three copies of the one at hand, 1.31 two:
    that in ``copied_bytes``, the live one, and the workspace.
    """
    counted = footprint.output_bytes if not operator.inputs else 0
    return replace(
        footprint,
        copied_bytes=footprint.copied_bytes - counted + footprint.output_bytes,
        workspace_bytes=footprint.workspace_bytes + 2 * footprint.output_bytes,
        in_place_input=None,
        in_place_bytes=0,
    )


def mapped_bytes(nbytes: int, *, in_file: bool) -> int:
    """Return the resident bytes of a weight: its part of the file; one in the model itself is held twice."""
    return INITIALIZER_BYTES + (file_bytes(nbytes) if in_file else 2 * nbytes)


def is_in_file(weight: Tensor) -> bool:
    """Return whether a weight lies in the weights file of its partition, not in the model."""
    return weight.storage is not None or weight.nbytes >= REFERENCE_BYTES


def file_bytes(nbytes: int) -> int:
    """Return the most bytes that a weight takes in its file, which is read whole; a shard's weight may be small."""
    unit = REFERENCE_BYTES if nbytes >= REFERENCE_BYTES else PACKED_BYTES
    return -(-nbytes // unit) * unit


def resident_bytes(weight: Tensor) -> int:
    """Return the resident bytes of a weight, see `mapped_bytes`."""
    return mapped_bytes(weight.nbytes, in_file=is_in_file(weight))


def copied_bytes(graph: Graph, operator: Operator, rewritten: bool) -> int:
    """Return the bytes of the anonymous copies that onnxruntime makes of an operator's weights while it loads.

    ``rewritten``: a fusion rewrites the weights. A subgraph is counted as a session of its own.
    """
    weights = [graph.weights[name] for name in operator.weights]
    total = (
        2 * operator.embedded_bytes
        + _attributes_bytes(operator)
        + operator.subgraphs * SESSION_BYTES
        + operator.folded_bytes
        + sum(2 * weight.nbytes for weight in weights if weight.dtype in {"float16", "bfloat16"})
    )
    total += sum(weight.nbytes for weight in weights if weight.dtype in _MAPPED_TWICE and weight.nbytes >= REFERENCE_BYTES)
    if not operator.inputs:  # constant folding: the results become weights, too
        total += sum(graph.tensors[name].nbytes for name in operator.outputs)
    if rewritten:
        total += sum(weight.nbytes for weight in weights)
    return total


def _attributes_bytes(operator: Operator) -> int:
    """Return what onnxruntime holds while it turns an operator's attributes into structures of its own."""
    return int(calibrated(_COPIES.get(operator.op_type, "attribute_copies")) * operator.attribute_bytes)


def _footprint(graph: Graph, operator: Operator, readers: Counter[str], rewritten: bool, threads: int) -> Footprint:
    inputs = {name: graph.tensors[name].nbytes for name in operator.inputs}
    outputs = sum(graph.tensors[name].nbytes for name in operator.outputs)
    reusable = [name for name, size in inputs.items() if readers[name] == 1 and size == outputs]
    in_place_input = reusable[0] if reusable and operator.op_type in IN_PLACE else None
    return Footprint(
        weight_bytes=sum(resident_bytes(graph.weights[name]) for name in operator.weights),
        copied_bytes=copied_bytes(graph, operator, rewritten),
        input_bytes=sum(inputs.values()),
        output_bytes=outputs,
        workspace_bytes=_workspace_bytes(graph, operator, sum(inputs.values()) + outputs, threads),
        in_place_input=in_place_input,
        in_place_bytes=outputs if in_place_input is not None else 0,
    )


def _workspace_bytes(graph: Graph, operator: Operator, activation_bytes: int, threads: int) -> int:
    """Return the workspace of an operator; where it is not known, as much as its inputs and outputs."""
    kind = operator.op_type
    if operator.table:
        return ROW_READ_BYTES + ROW_INDEX_BYTES * math.prod(graph.tensors[operator.inputs[0]].shape)
    if kind in FLOAT_CONVOLUTIONS and operator.weights and operator.inputs:
        kernel = graph.weights[operator.weights[0]].shape
        source, result = graph.tensors[operator.inputs[0]].shape, graph.tensors[operator.outputs[0]].shape
        if len(kernel) < len(source):  # only the bias is constant, the kernel is computed
            kernel = graph.tensors[operator.inputs[1]].shape
        return convolution_bytes(kind, kernel, source, result, threads)
    if kind in RECURRENT_GATES:
        source = max((graph.tensors[name].shape for name in operator.inputs), key=math.prod, default=(1, 1, 1))
        return activation_bytes + recurrent_bytes(kind, source, graph.tensors[operator.outputs[0]].shape)
    return 0 if kind in NO_WORKSPACE else activation_bytes


def _rewritten_weights(graph: Graph, readers: Counter[str]) -> frozenset[str]:
    """Return the operators whose weights a fusion rewrites at load time.

    Those are the operators that only a BatchNormalization, or a Mul or Add by weights, reads.
    """
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    rewritten = set()
    for operator in graph.operators:
        before = writer.get(operator.inputs[0]) if operator.inputs else None
        if before is None or readers[operator.inputs[0]] != 1:
            continue
        convolves = before.op_type in FLOAT_CONVOLUTIONS
        normalised = operator.op_type == "BatchNormalization" and (convolves or before.op_type == "MatMul")
        if normalised or (convolves and operator.op_type in {"Mul", "Add"} and operator.weights):
            rewritten.add(before.name)
    return frozenset(rewritten)


def _fused_matmuls(graph: Graph, readers: Counter[str]) -> frozenset[str]:
    """Return each MatMul of three or more dimensions by a weight that only an Add of a weight reads."""
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    fused = set()
    for operator in graph.operators:
        if operator.op_type != "Add" or not operator.weights or not operator.inputs:
            continue
        name = operator.inputs[0]
        before = writer.get(name)
        if before and before.op_type == "MatMul" and before.weights and readers[name] == 1:
            fused |= {before.name} if len(graph.tensors[name].shape) > 2 else set()
    return frozenset(fused)
