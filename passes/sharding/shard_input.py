"""Horizontal split by input, of convolutions by filter: each shard adds its products to what those before it made.

Hadidi, section 4.2 (input splitting) and 4.3.3 (filter splitting). A shard holds the weights of some columns or channels of
the input, which a Slice hands to it. He merges all partial sums at the end; here each shard takes the sum so far and adds
to it (a Gemm as its third operand, others by a Sum), so that two of them are in memory and not all. The bias goes with the
first; activations follow the last.

The order of additions is another than the whole operator's, so the result differs in the last bits.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hyps.passes.sharding.graph_editor import GraphEditor, shard_parts
from hyps.passes.sharding.layouts import SplitLayout


def split_by_input(cutting: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Put ``count`` shards of ``node`` in its place; the last writes its result."""
    result = node.outputs[0]
    bias = node.inputs[2:3]
    nodes: list[gs.Node] = []
    summed: gs.Tensor | None = None
    for part in shard_parts(node.name, layout.widths(count)):
        operands = [cutting.cut(node.inputs[position], part, layout.axes[position], nodes) for position in (0, 1)]
        attributes = dict(node.attrs)
        last = part.index == count - 1
        if summed is None:
            operands += [cutting.own(operand, part, nodes) for operand in bias]
        elif node.op == "Gemm":
            operands.append(summed)
            attributes["beta"] = 1.0
        adds = summed is not None and node.op != "Gemm"
        value = result if last and not adds else gs.Variable(part.name(result.name), dtype=result.dtype)
        nodes.append(gs.Node(node.op, part.name(node.name), attributes, operands, [value]))
        if adds:
            total = result if last else gs.Variable(part.name(f"{result.name}/sum"), dtype=result.dtype)
            nodes.append(gs.Node("Sum", part.name(f"{node.name}/sum"), {}, [value, summed], [total]))
            value = total
        summed = value
    cutting.replace([node], nodes)
