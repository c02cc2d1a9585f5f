"""Decide whether an operator's shards add up their sums in the whole operator's order, so that no bit differs.

The decision follows the order of additions in `hyps.passes.mlas`. A convolution's rows are the filters of a group, its
columns the output's positions. Integers are exact in any order, and a ConvTranspose's blocks do not depend on its columns.
Measured on onnxruntime 1.31, x86-64 (tests/passes/sharding).
"""

from __future__ import annotations

import math

from onnx import NodeProto

from hyps.passes.mlas import BLOCK_DEPTH, WIDE_COLUMNS, WIDTH_STEP, has_wide_segments
from hyps.passes.onnx_ops import CONVOLUTIONS, INTEGER_OPERATORS
from hyps.passes.sharding.layouts import ConstantValues, SplitLayout, method_phrase


def inexact_split(node: NodeProto, layout: SplitLayout, values: ConstantValues, count: int, threads: int) -> str | None:
    """Return why the result of ``node`` in ``count`` shards may differ in the last bits, in words a user can read; or None.

    A QuantizeLinear after it might round the difference away; that is not considered.
    """
    if node.op_type in INTEGER_OPERATORS:
        return None
    if layout.method == "input":
        return f"{node.name!r} is split {method_phrase(node, layout.method)}: partial sums are added up in another order"
    widths = layout.widths(count)
    if node.op_type in CONVOLUTIONS or layout.weight < layout.source:
        if _keeps_order(node, layout, values, widths, threads):
            return None
        what = f"{node.name!r} is split {method_phrase(node, layout.method)} into {count} shards"
        return f"{what}, which onnxruntime adds up in another order"
    if layout.width % WIDTH_STEP:
        return f"{node.name!r} has {layout.width} outputs, no multiple of {WIDTH_STEP}, and is split"
    if min(widths) < narrowest_exact(node, layout, values, threads):
        return f"{node.name!r} is split to {min(widths)} columns, which onnxruntime adds up in another order"
    return None


def narrowest_exact(node: NodeProto, layout: SplitLayout, values: ConstantValues, threads: int) -> int:
    """Return the fewest columns with which a shard of a Gemm or MatMul (right factor constant) keeps the whole's bits."""
    if layout.attributes.get("transA"):
        return WIDTH_STEP
    source, matrix = (values.shapes[node.input[position]] for position in (layout.source, layout.weight))
    rows = math.prod(source[:-1]) if len(matrix) == 2 else math.prod(source[-2:-1])
    unscaled = all(layout.attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
    one_row = rows == 1 and unscaled and values.constants[node.input[layout.weight]].dtype == "float32"  # without blocks
    return WIDTH_STEP if one_row or source[-1] <= BLOCK_DEPTH else WIDE_COLUMNS * threads


def _keeps_order(
    node: NodeProto, layout: SplitLayout, values: ConstantValues, widths: tuple[int, ...], threads: int
) -> bool:
    """Return whether shards of ``widths`` add up in the whole's order: of a convolution, or a constant left factor."""
    result, weight = values.shapes[node.output[0]], values.shapes[node.input[layout.weight]]
    stored = values.constants.get(node.input[layout.weight])
    if stored is not None and stored.dtype in {"float64", "float16", "bfloat16"}:  # other kernels, not measured
        return False
    if node.op_type == "ConvTranspose":
        return True
    if node.op_type == "Conv":
        depth, columns, rows = math.prod(weight[1:]), math.prod(result[2:]), weight[0] // layout.groups
    else:
        vector = len(values.shapes[node.input[layout.source]]) == 1
        depth, columns, rows = weight[-1], 1 if vector else result[-1], weight[-2]
    spatial = layout.method == "spatial"
    shard_columns = {columns, *(columns // layout.width * width for width in widths)} if spatial else {columns}
    least_rows = min(widths) if layout.method == "output" and layout.groups == 1 else rows
    if 1 in shard_columns or (least_rows == 1 and rows > 1):
        return threads == 1 and columns == 1
    if least_rows < 2 * threads and rows != least_rows:  # a thread might have one row
        return False
    if depth <= BLOCK_DEPTH or all(has_wide_segments(each, threads) for each in shard_columns):
        return True
    return not spatial and least_rows > columns
