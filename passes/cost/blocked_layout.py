"""Count the additional memory of a partition that onnxruntime computes in a processor's own layout (a tuned bundle).

At its highest optimisation level onnxruntime computes convolutions and poolings on channels in blocks (NCHWc). Then

- a tensor's channels are filled up to a multiple of the block, which is 8 or 16,
- an operator that knows no blocks, such as Add, reads and writes copies in the usual layout,
- a partition's inputs are copied into blocks, and its outputs out of blocks, since tensors between partitions have the usual
  layout.

The workspace of a convolution in the usual layout (im2col) is not needed then. Method: the sources of onnxruntime
(``nchwc_transformer.cc``), checked by ``test_tuned_memory.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.liveness import live_ranges
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.onnx_ops import ACTIVATIONS

#: The largest block of any processor (AVX-512).
BLOCK = 16
_SMALLEST_BLOCK = 8
#: Operators that compute on blocks wherever they are; others, such as Add and Concat, do at some places alone.
_BLOCKED = frozenset({"Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}) | ACTIVATIONS


def computes_in_blocks(graph: Graph, operator: Operator) -> bool:
    """Return whether onnxruntime may compute an operator and its neighbours in blocks: whether it is a 2-D convolution."""
    return operator.op_type == "Conv" and _is_picture(graph.tensors[operator.outputs[0]])


def layout_costs(graph: Graph, threads: int, process_bytes: int) -> Costs:
    """Return the costs of a graph whose partitions are computed in blocks."""
    padded, prints = blocked_view(graph, threads)
    filled = padded.tensors
    found = costs(padded, prints, process_bytes)
    entering, leaving = np.zeros(found.count + 2, np.int64), np.zeros(found.count + 2, np.int64)
    readers = {name for operator in graph.operators if operator.op_type in _BLOCKED for name in operator.inputs}
    written = {name for operator in graph.operators if operator.op_type in _BLOCKED for name in operator.outputs}
    written -= _fused_away(graph)
    for name, live in live_ranges(graph).items():
        for names, change in ((readers, entering), (written, leaving)):
            if name in names and _may_be_blocked(graph.tensors[name]):
                change[live.first + 1] += filled[name].nbytes
                change[min(live.last, found.count) + 1] -= filled[name].nbytes
    return replace(
        found,
        reorder_in=np.cumsum(entering)[: found.count + 1],
        reorder_out=np.cumsum(leaving)[: found.count + 1],
    )


def blocked_view(graph: Graph, threads: int) -> tuple[Graph, Mapping[str, Footprint]]:
    """Return a graph that is computed in blocks, with the footprints of its operators."""
    filled = filled_view(graph)
    return filled, _with_copies(filled, footprints(filled, threads))


def is_reordered(operator: Operator, tensor: Tensor) -> bool:
    """Return whether an operator reads or writes a copy, in blocks, of a tensor between partitions."""
    return operator.op_type in _BLOCKED and _may_be_blocked(tensor)


def filled_view(graph: Graph) -> Graph:
    """Return a graph whose tensors have whole blocks of channels."""
    return replace(graph, tensors={name: _filled(tensor) for name, tensor in graph.tensors.items()})


def _is_picture(tensor: Tensor) -> bool:
    """Return whether a tensor is [N, C, H, W] of 32-bit floats."""
    return len(tensor.shape) == 4 and tensor.dtype == "float32"


def _may_be_blocked(tensor: Tensor) -> bool:
    """Return whether a tensor may be in blocks; a convolution reads one of few channels as it is."""
    return _is_picture(tensor) and tensor.shape[1] >= _SMALLEST_BLOCK


def _filled(tensor: Tensor) -> Tensor:
    """Return a tensor whose channels are filled up to whole blocks."""
    if not _may_be_blocked(tensor) or tensor.shape[1] % BLOCK == 0 or not tensor.nbytes:
        return tensor
    channels = -(-tensor.shape[1] // BLOCK) * BLOCK
    return replace(tensor, nbytes=tensor.nbytes // tensor.shape[1] * channels)


def _fused_away(graph: Graph) -> set[str]:
    """Return the results of convolutions that only an activation reads, which becomes a part of the convolution."""
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    convolved = {name for operator in graph.operators if operator.op_type == "Conv" for name in operator.outputs}
    activated = {name for operator in graph.operators if operator.op_type in ACTIVATIONS for name in operator.inputs}
    return {name for name in convolved & activated if readers[name] == 1}


def _with_copies(graph: Graph, prints: Mapping[str, Footprint]) -> Mapping[str, Footprint]:
    """Return the footprints with an operator's copies between layouts, inside a partition, as its workspace.

    Where an operator knows no blocks, each tensor is given back when its copy is made: one of them is there twice.
    """
    writers = {name: operator for operator in graph.operators for name in operator.outputs}
    found = {}
    for operator in graph.operators:
        own = prints[operator.name]
        copies = [graph.tensors[name].nbytes for name in operator.inputs if _is_copied(graph, writers, operator, name)]
        if operator.op_type in _BLOCKED:
            copied = sum(copies)
        else:
            written = [graph.tensors[name].nbytes for name in operator.outputs if _may_be_blocked(graph.tensors[name])]
            copied = max(copies + written, default=0)
        kept = 0 if _is_direct(graph, operator) else own.workspace_bytes
        found[operator.name] = replace(own, workspace_bytes=max(kept, copied))
    return found


def _is_direct(graph: Graph, operator: Operator) -> bool:
    """Return whether a convolution is sure to be computed in blocks, which needs no workspace.

    It is where each group has whole blocks, or where there is one group whose channels are few or a multiple of 4.
    """
    if operator.op_type != "Conv" or not operator.weights or not operator.inputs:
        return False
    kernel, source = graph.weights[operator.weights[0]].shape, graph.tensors[operator.inputs[0]].shape
    if len(kernel) != 4 or len(source) != 4 or not kernel[1]:
        return False
    groups = source[1] // kernel[1]
    if groups == 1:
        return kernel[1] % 4 == 0 or kernel[1] < _SMALLEST_BLOCK
    whole = kernel[0] % BLOCK == 0 and (kernel[0] // groups) % BLOCK == 0 and kernel[1] % BLOCK == 0
    return whole or (kernel[1] == 1 and kernel[0] == groups and kernel[0] % BLOCK == 0)


def _is_copied(graph: Graph, writers: Mapping[str, Operator], operator: Operator, name: str) -> bool:
    """Return whether an operator may read a tensor of another operator in another layout than it was written in."""
    before = writers.get(name)
    if before is None or not _may_be_blocked(graph.tensors[name]):
        return False
    return operator.op_type not in _BLOCKED or before.op_type not in _BLOCKED
