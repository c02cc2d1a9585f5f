"""When a shard's sums are added up in the whole operator's order, so that no bit differs.

onnxruntime computes products and convolutions by MLAS's single-precision GEMM (MlasSgemmOperation). It adds up more than
`_BLOCK_DEPTH` products block by block; the blocks are longer where a thread has few columns to compute, and one row or one
column goes to another kernel. Of a convolution the rows are the filters of a group, the columns the output's positions;
threads share the columns, or the rows where those are more. Integers are exact in any order, and a ConvTranspose's blocks
do not depend on its columns. Measured on onnxruntime 1.31, x86-64.
"""

from __future__ import annotations

import math

from onnx import NodeProto

from hyps.passes.sharding.layouts import CONVOLUTIONS, INTEGER, WIDTH_STEP, ConstantValues, SplitLayout, how

_BLOCK_DEPTH, _BLOCK_COLUMNS = 128, 80
#: Of so many columns or fewer the blocks are longer.
_NARROW_COLUMNS = 64


def inexact_split(node: NodeProto, layout: SplitLayout, values: ConstantValues, count: int, threads: int) -> str | None:
    """Why the result of ``node`` in ``count`` shards may differ in the last bits, in words a user can read; or None.

    What QuantizeLinear behind it would round away is not looked at.
    """
    if node.op_type in INTEGER:
        return None
    if layout.method == "input":
        return f"{node.name!r} is split {how(node, layout.method)}: partial sums are added up in another order"
    narrowest = min(layout.widths(count))
    if node.op_type in CONVOLUTIONS or layout.weight < layout.source:
        if _same_order(node, layout, values, layout.widths(count), threads):
            return None
        what = f"{node.name!r} is split {how(node, layout.method)} into {count} shards"
        return f"{what}, which onnxruntime adds up in another order"
    if layout.width % WIDTH_STEP:
        return f"{node.name!r} has {layout.width} outputs, no multiple of {WIDTH_STEP}, and is split"
    if narrowest < narrowest_exact(node, layout, values, threads):
        return f"{node.name!r} is split to {narrowest} columns, which onnxruntime adds up in another order"
    return None


def narrowest_exact(node: NodeProto, layout: SplitLayout, values: ConstantValues, threads: int) -> int:
    """The fewest columns of a shard of a Gemm or MatMul, its second factor constant, whose bits are those of the whole."""
    if layout.attributes.get("transA"):
        return WIDTH_STEP
    source, matrix = (values.shapes[node.input[position]] for position in (layout.source, layout.weight))
    rows = math.prod(source[:-1]) if len(matrix) == 2 else math.prod(source[-2:-1])
    plain = all(layout.attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
    one_row = rows == 1 and plain and values.constants[node.input[layout.weight]].dtype == "float32"  # without blocks
    return WIDTH_STEP if one_row or source[-1] <= _BLOCK_DEPTH else _BLOCK_COLUMNS * threads


def _same_order(node: NodeProto, layout: SplitLayout, values: ConstantValues, widths: tuple[int, ...], threads: int) -> bool:
    """Of a convolution, or a product whose first factor is constant, in shards of ``widths``."""
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
    ranges = {columns, *(columns // layout.width * width for width in widths)} if spatial else {columns}
    least_rows = min(widths) if layout.method == "output" and layout.groups == 1 else rows
    if 1 in ranges or (least_rows == 1 and rows > 1):
        return threads == 1 and columns == 1
    if least_rows < 2 * threads and rows != least_rows:  # a thread might have one row
        return False
    if depth <= _BLOCK_DEPTH or all(_are_wide(each, threads) for each in ranges):
        return True
    return not spatial and least_rows > columns


def _are_wide(columns: int, threads: int) -> bool:
    """Whether all threads have columns for blocks of the usual length, however many of them share the work.

    A convolution's threads take multiples of 16 columns, the last one the rest (MlasConvExpandThenGemmSegmentedThreaded).
    """
    shares = [-(-columns // (16 * number)) * 16 for number in range(1, threads + 1)]
    rests = [columns % share or share for share in shares]
    return columns >= _BLOCK_COLUMNS * threads and min(rests) > _NARROW_COLUMNS
