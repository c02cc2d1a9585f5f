"""The rewrite to tiles: every operator of a region once for each tile, and their results joined.

Weights are those of the whole, shared by all tiles. The tiles stand one behind the other, and a session runs them so: what
one made is released before the next starts. What a tile is made of: see `hyps.passes.tiling.tiles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.passes.graph import Operator, view
from hyps.passes.onnx_ops import PAD_INPUTS_OPSET, SLICE_INPUTS_OPSET, standard_opset
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.tiling.rules import TileAxis, TilingRule
from hyps.passes.tiling.tileable import tiling_rules
from hyps.passes.tiling.tiles import Piece, tiles_of
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRegion:
    """Operators that follow each other, in execution order, into how many tiles they go along what, and why."""

    operators: tuple[str, ...]
    tiles: int
    tile_axis: TileAxis = "rows"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRegions:
    """Compute every region tile by tile; ``threads`` is the most that a session may have. Shapes must be known."""

    regions: tuple[TileRegion, ...]
    threads: int

    def __call__(self, model: Model) -> Rewritten:
        """Tile; see the module. Raises `ValueError` for a region that cannot be tiled."""
        if not self.regions:
            return Rewritten(model=model)
        graph = view(model)
        tileable = tiling_rules(model, graph, self.threads)
        place = {operator.name: index for index, operator in enumerate(graph.operators)}
        writer = _Writer(model)
        changes, spans = [], {}
        for region in self.regions:
            start, stop = place[region.operators[0]], place[region.operators[-1]] + 1
            operators = graph.operators[start:stop]
            swept = tileable[region.tile_axis]
            tiles = tiles_of(graph, swept, operators, region.tiles)
            if tuple(operator.name for operator in operators) != region.operators or tiles is None:
                raise ValueError(
                    f"{region.operators[0]} to {region.operators[-1]} cannot be computed in {region.tiles} tiles of "
                    f"{region.tile_axis}"
                )
            spans[start] = (stop, list(writer.nodes(tiles, operators, swept)))
            what = f"computed with what follows, up to {region.operators[-1]}, in {region.tiles} tiles of {region.tile_axis}"
            changes.append(Change(operator=region.operators[0], what=what, why=region.reason))
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        del proto.graph.node[:]
        index = 0
        while index < len(graph.operators):
            stop, nodes = spans.get(index, (index + 1, [model.proto.graph.node[index]]))
            proto.graph.node.extend(nodes)
            index = stop
        proto.graph.initializer.extend(writer.constants.values())
        unused = {name for name in writer.replaced if not any(name in node.input for node in proto.graph.node)}
        kept = [tensor for tensor in proto.graph.initializer if tensor.name not in unused]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
        return Rewritten(model=Model(proto=proto, weights=model.weights), changes=tuple(changes))


class _Writer:
    """Makes the nodes of tiles, and collects the ``constants`` that they read; ``replaced`` ones may be read no more."""

    def __init__(self, model: Model) -> None:
        self.constants: dict[str, TensorProto] = {}
        self.replaced: set[str] = set()
        self._nodes = {node.name: node for node in model.proto.graph.node}
        self._constants = {tensor.name: tensor for tensor in model.proto.graph.initializer}
        self._opset = standard_opset(model.proto)

    def nodes(
        self, tiles: Sequence[Sequence[Piece]], operators: Sequence[Operator], tileable: Mapping[str, TilingRule]
    ) -> Iterator[NodeProto]:
        """The nodes of all tiles of a region, and the Concat of their results."""
        last = operators[-1]
        for tile in tiles:
            for piece in tile:
                if piece.operator is None:
                    yield self._slice(piece)
                else:
                    yield self._part(piece, tileable[piece.operator].pads)
        parts = [tile[-1].output for tile in tiles]
        yield helper.make_node("Concat", parts, [last.outputs[0]], f"{last.name}/tiles", axis=tileable[last.name].axis)

    def _part(self, piece: Piece, pads: tuple[int, ...] | None) -> NodeProto:
        node = NodeProto()
        node.CopyFrom(self._nodes[piece.operator or ""])
        node.name = piece.name
        node.input[:] = [piece.inputs.get(name, name) for name in node.input]
        node.output[:] = [piece.output]
        if pads is None:
            return node
        rank = len(pads) // 2
        axis = piece.axis if node.op_type == "Pad" else 0
        amounts = [*pads]
        amounts[axis], amounts[rank + axis] = piece.pads
        if node.op_type == "Pad" and self._opset >= PAD_INPUTS_OPSET:
            self.replaced.add(node.input[1])
            node.input[1] = self._constant(f"{piece.name}/pads", amounts)
            return node
        kept = [attribute for attribute in node.attribute if attribute.name not in {"pads", "auto_pad"}]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", amounts)])
        return node

    def _slice(self, piece: Piece) -> NodeProto:
        (source,) = piece.inputs.values()
        start, stop = piece.rows
        if self._opset < SLICE_INPUTS_OPSET:
            return helper.make_node(
                "Slice", [source], [piece.name], piece.name, axes=[piece.axis], starts=[start], ends=[stop]
            )
        bounds = [
            self._constant(f"{piece.name}/{what}", [value])
            for what, value in (("start", start), ("stop", stop), ("axis", piece.axis))
        ]
        return helper.make_node("Slice", [source, *bounds], [piece.name], piece.name)

    def _constant(self, name: str, values: Sequence[int]) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name
