"""Make the parity shards of an 8-bit operator: two planes of weights, whose sums of products are put together.

The weights of a parity shard are sums of 8-bit weights times whole numbers. It has them as 256 times a high plane plus a low
one, both of 8 bits, so that the same integer operator computes each: its sums are 256 times those of the high plane, plus
those of the low one. `hyps.passes.sharding.integer_codes` says why none of them exceeds 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.weights import Origin, Plane, byte_plane, combined, part_name, part_origin, placeholder

_PLANES: tuple[Plane, Plane] = ("high", "low")


def integer_parity_nodes(
    editor: GraphEditor, shards: Sequence[Sequence[gs.Node]], row: Sequence[float], index: int, count: int
) -> Iterator[gs.Node]:
    """Yield the nodes of parity shard ``index`` of ``count``: two integer operators, a Mul and an Add."""
    first = shards[0][0]
    whole, result = (part_origin(name) for name in (first.name, first.outputs[0].name))
    assert whole is not None
    assert result is not None
    origin = Origin(kind="parity", operator=whole.operator, index=index, count=count)
    name, output = (part_name(each.operator, "parity", index, count) for each in (whole, result))
    source, _, source_zero, weight_zero = first.inputs
    zero = int(numpy_helper.to_array(editor.constants[weight_zero.name]))
    parts = [members[0].inputs[1] for members in shards]
    middle = editor.constant(numpy_helper.from_array(np.array(128, np.uint8), f"{name}/zero"))
    sums: dict[Plane, gs.Tensor] = {}
    for plane in _PLANES:
        weight = _weight(editor, f"{name}/{plane} weight", parts, row, zero, plane)
        operands = [source, weight, source_zero, middle]
        node = editor.copy(first, f"{name}/{plane}", operands, f"{output}/{plane}", origin=origin)
        sums[plane] = node.outputs[0]
        yield node
    factor = editor.constant(numpy_helper.from_array(np.array(256, np.int32), f"{name}/256"))
    times = editor.node("Mul", f"{name}/times", [sums["high"], factor], f"{output}/times", origin=origin)
    yield times
    yield editor.node("Add", name, [*times.outputs, sums["low"]], output, origin=origin)


def _weight(
    editor: GraphEditor, name: str, parts: Sequence[gs.Tensor], row: Sequence[float], zero: int, plane: Plane
) -> gs.Constant:
    """Return a plane of the sum of ``parts`` less ``zero``, each times its number of ``row``."""
    tensors, offset = [editor.constants[part.name] for part in parts], -zero * int(sum(row))
    weights = [editor.weights[part.name] for part in parts if part.name in editor.weights]
    if weights:
        held = placeholder(name, TensorProto.UINT8, tuple(tensors[0].dims))
        return editor.constant(held, combined("uint8", weights, row, offset, plane))
    arrays = [int(number) * numpy_helper.to_array(each).astype(np.int32) for number, each in zip(row, tensors, strict=True)]
    return editor.constant(numpy_helper.from_array(byte_plane(np.sum(arrays, axis=0) + offset, plane), name))
