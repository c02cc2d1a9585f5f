"""Split an operator by output (a convolution by channel): each shard makes some columns of the result, a Concat joins them.

Hadidi, section 4.2 (output splitting) and 4.3.1 (channel splitting); Kaboubi, section 3.2.4 (H-partitions). Every shard
reads the whole input, or, where a convolution has groups, the part of it that belongs to its groups. Biases, scales and zero
points of the weights are cut with the weights. Every element is computed from the same numbers in the same order
(`hyps.passes.sharding.summation` says when), so the result is bit for bit the whole operator's.

Shards that have a code are of equal width, and end before the activation: up to there they are linear in their weights and
biases, so that a parity shard's result is a combination of theirs (Hadidi, section 6.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.sharding.fused_followers import fused_followers, shard_fused_followers
from hyps.passes.sharding.layouts import SplitLayout
from hyps.passes.sharding.shard_builder import ShardBuilder, merge_origin, shard_parts


def split_by_output(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace ``node`` and its fused followers by ``count`` shards and a Concat."""
    _split(editor, [node, *fused_followers(editor, node)], layout, layout.widths(count))


def split_for_code(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace ``node``, and the addition of a constant after it, by ``count`` shards of equal width and a Concat."""
    added = itertools.takewhile(lambda follower: _adds_constant(follower, node), fused_followers(editor, node))
    _split(editor, [node, *added], layout, (layout.width // count,) * count)


def _adds_constant(follower: gs.Node, node: gs.Node) -> bool:
    others = (operand for operand in follower.inputs if operand is not node.outputs[0])
    return follower.op == "Add" and all(isinstance(other, gs.Constant) for other in others)


def _split(editor: GraphEditor, chain: Sequence[gs.Node], layout: SplitLayout, widths: Sequence[int]) -> None:
    """Replace ``chain``, an operator and its followers, by shards of ``widths`` and a Concat."""
    assert layout.axis is not None
    node = chain[0]
    nodes: list[gs.Node] = []
    results = []
    for part in shard_parts(node.name, widths):
        shard = ShardBuilder(editor, part)
        value = _shard_of_node(shard, node, layout)
        results.append(shard_fused_followers(shard, chain, value, layout.axis))
        nodes += shard.nodes
    origin = merge_origin(node.name, len(widths))
    whole = chain[-1].outputs[0]
    nodes.append(editor.node("Concat", f"{node.name}/concat", results, whole, origin=origin, axis=layout.axis))
    editor.replace(chain, nodes)


def _shard_of_node(shard: ShardBuilder, node: gs.Node, layout: SplitLayout) -> gs.Tensor:
    operands = [
        shard.cut(operand, layout.axes[position]) if position in layout.axes else shard.uncut(operand)
        for position, operand in enumerate(node.inputs)
    ]
    attributes = dict(node.attrs)
    if layout.groups > 1:
        attributes["group"] = layout.groups * (shard.part.stop - shard.part.start) // layout.width
    return shard.copy(node, operands, attributes)
