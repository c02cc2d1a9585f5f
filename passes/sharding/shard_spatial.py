"""Spatial split of one convolution: each shard makes some rows of the result, from those rows of the input and a halo.

Hadidi, section 4.3.2, along the first spatial axis alone. The halo is as deep as the kernel, with its dilation, reaches
beyond the stride: the shards' inputs overlap by it. Pads stand where the input ends, and in no shard between. All shards
have all weights, so this saves no weights but workspace and, with what follows, activations.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hyps.passes.onnx_ops import spatial_pads
from hyps.passes.receptive_field import row_window
from hyps.passes.sharding.fused_followers import fused_followers, shard_fused_followers
from hyps.passes.sharding.graph_editor import GraphEditor, shard_parts
from hyps.passes.sharding.layouts import SplitLayout

_AXIS = 2


def split_spatially(cutting: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Put ``count`` shards of a Conv with what follows it, and a Concat, in its place."""
    chain = [node, *fused_followers(cutting, node)]
    result = chain[-1].outputs[0]
    source, *others = node.inputs
    kernel, sizes = tuple(others[0].shape[_AXIS:]), tuple(source.shape[_AXIS:])
    window, pads = row_window(layout.attributes, kernel, sizes), list(spatial_pads(layout.attributes, kernel, sizes))
    nodes: list[gs.Node] = []
    results = []
    for part in shard_parts(node.name, layout.widths(count)):
        inputs = window.input_rows((part.start, part.stop), sizes[0])
        assert inputs is not None, "layouts refuses pads that are as long as the kernel"
        pads[0], pads[len(kernel)] = inputs.pads
        operands = [
            cutting.rows(source, part, _AXIS, *inputs.rows, nodes),
            *(cutting.own(operand, part, nodes) for operand in others),
        ]
        attributes = {**node.attrs, "auto_pad": "NOTSET", "pads": list(pads)}
        value = gs.Variable(part.name(node.outputs[0].name), dtype=node.outputs[0].dtype)
        nodes.append(gs.Node(node.op, part.name(node.name), attributes, operands, [value]))
        results.append(shard_fused_followers(cutting, chain, value, _AXIS, part, nodes))
    nodes.append(gs.Node("Concat", f"{node.name}/concat", {"axis": _AXIS}, results, [result]))
    cutting.replace(chain, nodes)
