"""Whether a plan's result is bit for bit the whole model's, and if not, why.

It is where onnxruntime computes every number from the same numbers in the same order: no cut and no split parts what it
computes as one, and shards are wide enough. Measured on onnxruntime 1.31, x86-64.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from onnx import NodeProto

from hyps.passes.fusion import ACTIVATIONS, fusion_groups, sealed_positions
from hyps.passes.graph import Graph, Tensor
from hyps.passes.oversize import Oversize
from hyps.passes.shard import WIDTH_STEP, shard_widths
from hyps.passes.weights import Model

#: Operators whose neighbours were cut apart (``--split layers``) in the reference networks, the onnx package's light models
#: and 14 trained models of other origins, without changing a bit; activations are one kind. Others may be: a transposition
#: that onnxruntime moves across a mean, a fused Gelu, or attention are computed otherwise when a cut comes between.
_MEASURED = ACTIVATIONS | frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Constant", "ConstantOfShape", "Conv", "DequantizeLinear"}
    | {"Dropout", "Flatten", "Gemm", "GlobalAveragePool", "Identity", "LRN", "LSTM", "MatMul", "MaxPool", "Mul", "Pad"}
    | {"QuantizeLinear", "Reshape", "Resize", "Slice", "Softmax", "Split", "Squeeze", "Sum", "Transpose", "Unsqueeze"}
)

#: MLAS (MlasSgemmOperation) adds up a product of more inputs than this block by block; the blocks are longer where a thread
#: has fewer columns than the second number to compute.
_BLOCK_DEPTH, _BLOCK_COLUMNS = 128, 80


def inexact_reason(
    model: Model, whole: Graph, splits: Collection[Oversize], sharded: Graph, cuts: Collection[int], threads: int
) -> str | None:
    """Why the result may differ from the whole model's in the last bits, in words a user can read; None if it may not.

    ``whole`` is the graph of ``model``, ``sharded`` the one after ``splits``, in which ``cuts`` are positions.
    """
    return next(_reasons(model, whole, splits, sharded, cuts, threads), None)


def _reasons(
    model: Model, whole: Graph, splits: Collection[Oversize], sharded: Graph, cuts: Collection[int], threads: int
) -> Iterator[str]:
    for position in sorted(sealed_positions(sharded) & set(cuts)) if cuts else ():
        before, behind = sharded.operators[position - 1], sharded.operators[position]
        yield f"a cut separates {before.name!r} and {behind.name!r}, which onnxruntime would compute as one"
    unknown = sorted({operator.op_type for operator in whole.operators} - _MEASURED)
    if cuts and unknown:
        yield f"it is not known whether cuts leave every bit of {', '.join(unknown[:3])} as it is"
    if cuts and any(tensor.dtype in ("float16", "bfloat16") for tensor in whole.tensors.values()):
        yield "onnxruntime computes 16-bit floats in 32 bits from operator to operator, and a cut rounds them"
    nodes = {node.name: node for node in model.proto.graph.node}
    left = {operator.name for operator in sharded.operators if operator.op_type not in ACTIVATIONS}
    groups = [[whole.operators[index].name for index in group] for group in fusion_groups(whole)] if splits else []
    for split in splits:
        if split.width % WIDTH_STEP:
            yield f"{split.operator!r} has {split.width} outputs, no multiple of {WIDTH_STEP}, and is split"
        fused = [name for group in groups if split.operator in group for name in group if name in left]
        if fused:
            yield f"{split.operator!r} is split, {fused[0]!r} is not, and onnxruntime would compute them as one"
        node = nodes[split.operator]
        if node.input[0] not in whole.tensors:
            continue  # a product of constants
        narrowest = narrowest_exact(node, whole.tensors[node.input[0]], whole.weights[node.input[1]], threads)
        columns = min(shard_widths(split.width, split.shards))
        if columns < narrowest:
            yield f"{split.operator!r} is split to {columns} columns, which onnxruntime adds up in another order"


def narrowest_exact(node: NodeProto, source: Tensor, matrix: Tensor, threads: int) -> int:
    """The fewest columns of a shard of ``node``, ``source`` times ``matrix``, whose bits are those of the whole."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "transA" in attributes and attributes["transA"].i:
        return WIDTH_STEP
    rows = math.prod(source.shape[:-1]) if len(matrix.shape) == 2 else math.prod(source.shape[-2:-1])
    plain = all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes)
    one_row = rows == 1 and plain and matrix.dtype == "float32"  # another kernel, without blocks
    return WIDTH_STEP if one_row or source.shape[-1] <= _BLOCK_DEPTH else _BLOCK_COLUMNS * threads
