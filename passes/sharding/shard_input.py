"""Split an operator by input (a convolution by filter): each shard adds its products to the sum of the shards before it.

Hadidi, section 4.2 (input splitting) and 4.3.3 (filter splitting). A shard holds the weights of some columns or channels of
the input, and a Slice gives it that part of the input. Hadidi merges all partial sums at the end. Here each shard adds to
the sum so far (a Gemm by its third operand, others by a Sum), so that two partial sums are in memory and not all of them.
The first shard adds the bias; activations follow the last.

The additions are in another order than in the whole operator, so the result differs in the last bits.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.sharding.layouts import SplitLayout
from hyps.passes.sharding.shard_builder import ShardBuilder, merge_origin, shard_parts


def split_by_input(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace ``node`` by ``count`` shards; the last writes its result."""
    result = node.outputs[0]
    bias = node.inputs[2:3]
    origin = merge_origin(node.name, count)
    nodes: list[gs.Node] = []
    total: gs.Tensor | None = None
    for part in shard_parts(node.name, layout.widths(count)):
        shard = ShardBuilder(editor, part)
        operands = [shard.cut(node.inputs[position], layout.axes[position]) for position in (0, 1)]
        attributes = dict(node.attrs)
        target = result if part.index == count - 1 else None
        if total is None:
            operands += [shard.uncut(operand) for operand in bias]
            total = shard.copy(node, operands, attributes, target)
        elif node.op == "Gemm":
            attributes["beta"] = 1.0
            total = shard.copy(node, [*operands, total], attributes, target)
        else:
            value = shard.copy(node, operands, attributes)
            target = part.name(f"{result.name}/sum") if target is None else target
            shard.nodes.append(editor.node("Sum", part.name(f"{node.name}/sum"), [value, total], target, origin=origin))
            total = shard.nodes[-1].outputs[0]
        nodes += shard.nodes
    editor.replace([node], nodes)
