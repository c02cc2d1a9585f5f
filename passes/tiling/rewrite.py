"""Replace regions of operators by tiles: every operator of a region once for each tile, and a Concat of their results.

All tiles share the whole operators' weights. The tiles stand one after the other, and a session runs them in that order: it
releases what one tile made before the next starts. `hyps.passes.tiling.tiles` says what a tile is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import Graph, Operator, view
from hyps.passes.onnx_ops import PAD_INPUTS_OPSET
from hyps.passes.rewrite import Change, Rewrite, Rewritten
from hyps.passes.tiling.rules import TileAxis, TilingRule
from hyps.passes.tiling.tileable import tiling_rules
from hyps.passes.tiling.tiles import Piece, tiles_of
from hyps.passes.weights import Model, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRegion:
    """Operators that follow each other, in execution order; the number of tiles, along rows or heads; and the reason."""

    operators: tuple[str, ...]
    tiles: int
    tile_axis: TileAxis = "rows"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRegions(Rewrite):
    """Compute every region tile by tile; a session has at most ``threads`` threads."""

    regions: tuple[TileRegion, ...]
    threads: int

    def __call__(self, model: Model) -> Rewritten:
        """Return the model with tiles; raises `ValueError` for a region that cannot be tiled."""
        if not self.regions:
            return Rewritten(model=model)
        graph = view(model)
        tileable = tiling_rules(model, graph, self.threads)
        place = {operator.name: index for index, operator in enumerate(graph.operators)}
        editor = GraphEditor(model)
        changes = []
        for region in self.regions:
            operators = graph.operators[place[region.operators[0]] : place[region.operators[-1]] + 1]
            swept = tileable[region.tile_axis]
            tiles = _tiles(graph, swept, operators, region)
            nodes = _nodes(editor, tiles, operators, swept)
            editor.replace([editor.operator(operator.name) for operator in operators], nodes)
            what = f"computed with what follows, up to {region.operators[-1]}, in {region.tiles} tiles of {region.tile_axis}"
            changes.append(Change(operator=region.operators[0], what=what, why=region.reason))
        return Rewritten(model=editor.finish(), changes=tuple(changes))


def _tiles(
    graph: Graph, swept: Mapping[str, TilingRule], operators: Sequence[Operator], region: TileRegion
) -> Sequence[Sequence[Piece]]:
    tiles = tiles_of(graph, swept, operators, region.tiles)
    if tiles is None or tuple(operator.name for operator in operators) != region.operators:
        raise ValueError(
            f"{region.operators[0]} to {region.operators[-1]} cannot be computed in {region.tiles} tiles "
            f"of {region.tile_axis}"
        )
    return tiles


def _nodes(
    editor: GraphEditor, tiles: Sequence[Sequence[Piece]], operators: Sequence[Operator], swept: Mapping[str, TilingRule]
) -> Iterator[gs.Node]:
    """Yield the nodes of all tiles of a region, and the Concat of their results."""
    results: list[gs.Tensor] = []
    for index, tile in enumerate(tiles):
        made: dict[str, gs.Tensor] = {}
        for piece in tile:
            origin = Origin(kind="tile", operator=piece.operator or operators[0].name, index=index, count=len(tiles))
            if piece.operator is None:
                (source,) = piece.inputs.values()
                tensor = made[source] if source in made else editor.tensor(source)
                start, stop = piece.rows
                bounds = ("start", "stop", "axis")
                node = editor.slice(tensor, piece.name, piece.axis, start, stop, origin=origin, bounds=bounds)
            else:
                node = _part(editor, piece, made, swept[piece.operator].pads, origin)
            made[piece.output] = node.outputs[0]
            yield node
        results.append(made[tile[-1].output])
    last = operators[-1]
    whole, axis = editor.tensor(last.outputs[0]), swept[last.name].axis
    origin = Origin(kind="merge", operator=last.name, index=0, count=len(tiles))
    yield editor.node("Concat", f"{last.name}/tiles", results, whole, origin=origin, axis=axis)


def _part(
    editor: GraphEditor, piece: Piece, made: Mapping[str, gs.Tensor], pads: tuple[int, ...] | None, origin: Origin
) -> gs.Node:
    """Return one operator's part in a tile; of its own ``pads`` it keeps those of the whole that the tile touches."""
    node = editor.operator(piece.operator or "")
    names = (piece.inputs.get(tensor.name, tensor.name) for tensor in node.inputs)
    inputs = [made[name] if name in made else editor.tensor(name) for name in names]
    attributes: dict[str, Any] = dict(node.attrs)
    if pads is not None:
        axis = piece.axis if node.op == "Pad" else 0
        amounts = [*pads]
        amounts[axis], amounts[len(pads) // 2 + axis] = piece.pads
        if node.op == "Pad" and editor.opset >= PAD_INPUTS_OPSET:
            inputs[1] = editor.integers(f"{piece.name}/pads", amounts)
        else:
            attributes = {name: value for name, value in node.attrs.items() if name not in {"pads", "auto_pad"}}
            attributes["pads"] = amounts
    return editor.copy(node, piece.name, inputs, piece.output, origin=origin, attributes=attributes)
