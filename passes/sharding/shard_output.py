"""Horizontal split by output, of convolutions by channel: each shard makes some columns of the result, then a Concat.

Hadidi, section 4.2 (output splitting) and 4.3.1 (channel splitting); Kaboubi, section 3.2.4 (H-partitions). The input goes
to all shards, or where a convolution has groups the groups' part of it; biases, scales and zero points of the weights are
cut along. Every element is computed from the same numbers in the same order (`hyps.passes.sharding.summation` says when),
so the result is bit for bit the whole operator's.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hyps.passes.sharding.fused_followers import fused_followers, shard_fused_followers
from hyps.passes.sharding.graph_editor import GraphEditor, Part, shard_parts
from hyps.passes.sharding.layouts import SplitLayout


def split_by_output(cutting: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Put ``count`` shards of ``node`` with what follows it, and a Concat, in its place."""
    assert layout.axis is not None
    chain = [node, *fused_followers(cutting, node)]
    result = chain[-1].outputs[0]
    nodes: list[gs.Node] = []
    results = []
    for part in shard_parts(node.name, layout.widths(count)):
        value = _shard(cutting, node, layout, part, nodes)
        results.append(shard_fused_followers(cutting, chain, value, layout.axis, part, nodes))
    nodes.append(gs.Node("Concat", f"{node.name}/concat", {"axis": layout.axis}, results, [result]))
    cutting.replace(chain, nodes)


def _shard(cutting: GraphEditor, node: gs.Node, layout: SplitLayout, part: Part, nodes: list[gs.Node]) -> gs.Variable:
    operands = [
        cutting.cut(operand, part, layout.axes[position], nodes)
        if position in layout.axes
        else cutting.own(operand, part, nodes)
        for position, operand in enumerate(node.inputs)
    ]
    attributes = dict(node.attrs)
    if layout.groups > 1:
        attributes["group"] = layout.groups * (part.stop - part.start) // layout.width
    value = gs.Variable(part.name(node.outputs[0].name), dtype=node.outputs[0].dtype)
    nodes.append(gs.Node(node.op, part.name(node.name), attributes, operands, [value]))
    return value
