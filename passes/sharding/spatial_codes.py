"""Split a convolution into row tiles of equal height that have a code, and make its parity shards.

A convolution is linear in its input: of a combination of tiles of one height, halos and padding included, it makes the same
combination of their results. All shards have all weights. The tiles are cut in the step before the shards, so that each
shard is sent its own tile alone. A parity shard is sent all tiles, and encodes them: it pads those at the edges, multiplies
each by its coefficient and adds them up. Then it convolves the sum. Its bias is that of the shards times the sum of its
coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from hyps.passes.device import DeviceRates
from hyps.passes.edit import GraphEditor
from hyps.passes.graph import type_name
from hyps.passes.onnx_ops import PAD_INPUTS_OPSET, spatial_pads
from hyps.passes.receptive_field import row_window
from hyps.passes.sharding.layouts import SplitLayout
from hyps.passes.sharding.shard_builder import ShardBuilder, merge_origin, shard_parts
from hyps.passes.sharding.shard_option import ShardOption
from hyps.passes.weights import Origin, combined, part_name, part_origin, placeholder

_AXIS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingCost:
    """The estimated seconds of the parity shards' encoding, of sending them tiles, and of the whole convolution."""

    encoding_s: float
    sending_s: float
    convolution_s: float

    @property
    def pays(self) -> bool:
        """Whether encoding and sending take less time than the convolution."""
        return self.encoding_s + self.sending_s < self.convolution_s


def encoding_cost(option: ShardOption, count: int, parity: int, convolution_s: float, device: DeviceRates) -> EncodingCost:
    """Return what encoding takes for a convolution in ``count`` tiles; the coefficients are ones for one parity shard.

    Every tile is padded or multiplied, and added up: it is read and written twice, or once.
    """
    kernel, sizes = (option.values.shapes[option.node.input[position]][_AXIS:] for position in (1, 0))
    window = row_window(option.layout.attributes, kernel, sizes)
    height = (option.layout.width // count - 1) * window.stride + window.extent
    tiles_bytes = count * height * option.source_bytes // sizes[0]
    moved = tiles_bytes * (2 if parity == 1 else 4)
    return EncodingCost(
        encoding_s=parity * moved / device.memory_bytes_per_s,
        sending_s=parity * (tiles_bytes + option.result_bytes // count) / device.network_bytes_per_s,
        convolution_s=convolution_s,
    )


def split_into_tiles(editor: GraphEditor, node: gs.Node, layout: SplitLayout, count: int) -> None:
    """Replace a Conv by Slices that cut its input into ``count`` tiles, a shard for each, and a Concat."""
    source, *others = node.inputs
    kernel, sizes = tuple(others[0].shape[_AXIS:]), tuple(source.shape[_AXIS:])
    window, pads = row_window(layout.attributes, kernel, sizes), list(spatial_pads(layout.attributes, kernel, sizes))
    tiles, nodes, results = [], [], []
    for part in shard_parts(node.name, (layout.width // count,) * count):
        shard = ShardBuilder(editor, part)
        inputs = window.input_rows((part.start, part.stop), sizes[0])
        assert inputs is not None, "split_layout refuses pads that are as long as the kernel"
        pads[0], pads[len(kernel)] = inputs.pads
        tiles.append(editor.slice(source, part_name(node.name, "tile", part.index, count), _AXIS, *inputs.rows))
        attributes = {**node.attrs, "auto_pad": "NOTSET", "pads": list(pads)}
        results.append(shard.copy(node, [*tiles[-1].outputs, *others], attributes))
        nodes += shard.nodes
    merge = editor.node(
        "Concat", f"{node.name}/concat", results, node.outputs[0], origin=merge_origin(node.name, count), axis=_AXIS
    )
    editor.replace([node], [*tiles, *nodes, merge])


def spatial_parity_nodes(
    editor: GraphEditor, shards: Sequence[Sequence[gs.Node]], row: Sequence[float], index: int, count: int
) -> Iterator[gs.Node]:
    """Yield the nodes of parity shard ``index`` of ``count``: what pads, multiplies and adds up the tiles, and a Conv."""
    first = shards[0][0]
    whole, result = (part_origin(name) for name in (first.name, first.outputs[0].name))
    assert whole is not None
    assert result is not None
    origin = Origin(kind="parity", operator=whole.operator, index=index, count=count)
    name, output = (part_name(each.operator, "parity", index, count) for each in (whole, result))
    _, weight, *biases = first.inputs
    dtype = tensor_dtype_to_np_dtype(editor.constants[weight.name].data_type)
    tiles = []
    for place, ((convolution, *_), coefficient) in enumerate(zip(shards, row, strict=True)):
        tile = convolution.inputs[0]
        if any(amounts := _row_pads(convolution)):
            padded = _padded(editor, tile, amounts, f"{name}/padded{place}", origin)
            yield padded
            (tile,) = padded.outputs
        if coefficient != 1:
            factor = editor.constant(numpy_helper.from_array(np.array(coefficient, dtype), f"{name}/factor{place}"))
            scaled = editor.node("Mul", f"{name}/scaled{place}", [tile, factor], f"{name}/scaled{place}", origin=origin)
            yield scaled
            (tile,) = scaled.outputs
        tiles.append(tile)
    encoded = editor.node("Sum", f"{name}/encoded", tiles, f"{name}/encoded", origin=origin)
    yield encoded
    pads = list(first.attrs["pads"])
    pads[0] = pads[len(pads) // 2] = 0
    scaled_biases = [_scaled(editor, f"{name}/bias", bias, math.fsum(row)) for bias in biases if bias.name]
    operands = [*encoded.outputs, weight, *scaled_biases]
    yield editor.copy(first, name, operands, output, origin=origin, attributes={**first.attrs, "pads": pads})


def _row_pads(convolution: gs.Node) -> tuple[int, int]:
    """Return the rows of padding before and after the tile of a shard."""
    pads = convolution.attrs["pads"]
    return pads[0], pads[len(pads) // 2]


def _padded(editor: GraphEditor, tile: gs.Tensor, rows: tuple[int, int], name: str, origin: Origin) -> gs.Node:
    """Return a Pad of rows of zeros before and after a tile."""
    amounts = [0] * 2 * len(tile.shape)
    amounts[_AXIS], amounts[len(tile.shape) + _AXIS] = rows
    if editor.opset < PAD_INPUTS_OPSET:
        return editor.node("Pad", name, [tile], name, origin=origin, pads=amounts)
    return editor.node("Pad", name, [tile, editor.integers(f"{name}/pads", amounts)], name, origin=origin)


def _scaled(editor: GraphEditor, name: str, bias: gs.Constant, factor: float) -> gs.Constant:
    """Return a bias times a number, computed in double precision."""
    weight, held = editor.weights.get(bias.name), editor.constants[bias.name]
    if weight is not None:
        made = placeholder(name, held.data_type, tuple(held.dims))
        return editor.constant(made, combined(type_name(held.data_type), [weight], [factor]))
    values = numpy_helper.to_array(held)
    return editor.constant(numpy_helper.from_array((values.astype(np.float64) * factor).astype(values.dtype), name))
