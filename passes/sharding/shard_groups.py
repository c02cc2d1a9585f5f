"""Split a convolution with groups within its groups: each shard makes some channels of every group.

A split by whole groups (`hyps.passes.sharding.shard_output`) gives each shard another part of the input, and then no
combination of weights makes the combination of results. Within its groups all shards read the whole input, so that they can
have a code. The merge puts the channels of each group next to each other again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.sharding.layouts import SplitLayout
from hyps.passes.sharding.shard_builder import ShardBuilder, merge_origin, shard_parts
from hyps.passes.weights import placeholder


def split_within_groups(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace a convolution by ``count`` shards with as many channels of every group, and what merges them."""
    groups, width = layout.groups, layout.width // layout.groups // count
    nodes: list[gs.Node] = []
    results = []
    for part in shard_parts(node.name, (width,) * count):
        shard = ShardBuilder(editor, part)
        source, weight, *others = node.inputs
        along = 1 if node.op == "ConvTranspose" else 0
        operands = [_channels(editor, weight, along, groups, part.start, part.stop)]
        operands += [
            _channels(editor, each, 0, groups, part.start, part.stop)
            if isinstance(each, gs.Constant) and each.shape
            else each
            for each in others
        ]
        results.append(shard.copy(node, [source, *operands]))
        nodes += shard.nodes
    nodes += _merge(editor, node, results, groups, width)
    editor.replace([node], nodes)


def _channels(editor: GraphEditor, tensor: gs.Constant, axis: int, groups: int, start: int, stop: int) -> gs.Constant:
    """Return channels ``start..stop`` of every group of a constant as a constant.

    Along axis 0 it has the channels of all groups, one group after the other; along axis 1 those of one group.
    """
    if axis == 1:
        return editor.part(tensor, axis, start, stop)
    whole, weight = editor.constants[tensor.name], editor.weights.get(tensor.name)
    rest = tuple(whole.dims[1:])
    name, shape = f"{tensor.name}[{groups} groups, {start}:{stop}]", (groups * (stop - start), *rest)
    by_group = (groups, whole.dims[0] // groups, *rest)
    if weight is not None:
        return editor.constant(placeholder(name, whole.data_type, shape), weight.slice(1, start, stop, by_group))
    values = np.ascontiguousarray(numpy_helper.to_array(whole).reshape(by_group)[:, start:stop]).reshape(shape)
    return editor.constant(numpy_helper.from_array(values, name))


def _merge(editor: GraphEditor, node: gs.Node, shards: Sequence[gs.Tensor], groups: int, width: int) -> list[gs.Node]:
    """Return the operators that join the shards: shards outside groups become groups outside shards."""
    origin, whole = merge_origin(node.name, len(shards)), node.outputs[0]
    batch, _, *positions = whole.shape
    apart = editor.integers(f"{node.name}/shape by shard", [batch, len(shards), groups, width, math.prod(positions)])
    together = editor.integers(f"{node.name}/shape", list(whole.shape))
    nodes: list[gs.Node] = []

    def add(kind: str, name: str, inputs: Sequence[gs.Tensor], output: gs.Tensor | str, **attributes: object) -> gs.Tensor:
        nodes.append(editor.node(kind, f"{node.name}/{name}", inputs, output, origin=origin, **attributes))
        return nodes[-1].outputs[0]

    joined = add("Concat", "concat", shards, f"{whole.name}/joined", axis=1)
    by_shard = add("Reshape", "split", [joined, apart], f"{whole.name}/by shard")
    by_group = add("Transpose", "transpose", [by_shard], f"{whole.name}/by group", perm=[0, 2, 1, 3, 4])
    add("Reshape", "merge", [by_group, together], whole)
    return nodes
