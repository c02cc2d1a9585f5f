"""Split one convolution spatially: each shard makes some rows of the result, from those rows of the input and a halo.

Hadidi, section 4.3.2, along the first spatial axis alone. The halo is the rows by which the dilated kernel exceeds the
stride; the shards' inputs overlap by it. Only the shards at the input's two ends have pads. All shards have all
weights: the split saves workspace and, with the fused followers, activations, but no weights.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.onnx_ops import spatial_pads
from hyps.passes.receptive_field import row_window
from hyps.passes.sharding.fused_followers import fused_followers, shard_fused_followers
from hyps.passes.sharding.layouts import SplitLayout
from hyps.passes.sharding.shard_builder import ShardBuilder, merge_origin, shard_parts

_AXIS = 2


def split_spatially(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace a Conv and its fused followers by ``count`` shards and a Concat."""
    chain = [node, *fused_followers(editor, node)]
    source, *others = node.inputs
    kernel, sizes = tuple(others[0].shape[_AXIS:]), tuple(source.shape[_AXIS:])
    window, pads = row_window(layout.attributes, kernel, sizes), list(spatial_pads(layout.attributes, kernel, sizes))
    nodes: list[gs.Node] = []
    results = []
    for part in shard_parts(node.name, layout.widths(count)):
        shard = ShardBuilder(editor, part)
        inputs = window.input_rows((part.start, part.stop), sizes[0])
        assert inputs is not None, "split_layout refuses pads that are as long as the kernel"
        pads[0], pads[len(kernel)] = inputs.pads
        operands = [shard.rows(source, _AXIS, *inputs.rows), *(shard.uncut(operand) for operand in others)]
        value = shard.copy(node, operands, {**node.attrs, "auto_pad": "NOTSET", "pads": list(pads)})
        results.append(shard_fused_followers(shard, chain, value, _AXIS))
        nodes += shard.nodes
    origin = merge_origin(node.name, count)
    whole = chain[-1].outputs[0]
    nodes.append(editor.node("Concat", f"{node.name}/concat", results, whole, origin=origin, axis=_AXIS))
    editor.replace(chain, nodes)
