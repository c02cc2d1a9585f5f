"""Spatial tiles: several operators, computed some rows at a time, so that their large tensors never exist as a whole.

Hadidi, sections 4.2 and 4.3 (spatial splits); fused over layers as in DeepThings (Zhao et al., 2018). A *region* is a run
of operators, any graph inside, with one result::

    x ─ conv ─ relu ─ conv ─ pool ─ y       x ┬─ rows 0..9  ─ conv ─ relu ─ conv ─ pool ─ rows 0..3 ─┐
                                              ├─ rows 6..17 ─ conv ─ relu ─ conv ─ pool ─ rows 4..7 ─┼─ Concat ─ y
                                              └─ ...                                                ─┘

Each tile of the result needs some rows of what is read for it, and so on back to the region's inputs, which are sliced. Rows
that two tiles need are computed twice. Weights are those of the whole, shared by all tiles. The tiles stand one behind the
other, and a session runs them so: what one made is released before the next starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.passes.graph import STANDARD_DOMAINS, Graph, Operator, view
from hyps.passes.rewrite import Change, Rewritten
from hyps.passes.rows import Rows, Source, tile_rows, union
from hyps.passes.tileable import AXIS, Sweep, sweeps
from hyps.passes.weights import Model

#: From this opset on, Slice has its bounds as inputs; Pad its amounts.
_SLICE_INPUTS, _PAD_INPUTS = 10, 11
_TILE = re.compile(r"/tile\d+of\d+(/|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRegion:
    """Operators that follow each other, in execution order, into how many tiles they go, and why."""

    operators: tuple[str, ...]
    tiles: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One operator's part in a tile. ``inputs``: what the whole operator's are called here; ``rows``: which it makes.

    Without an ``operator`` it slices its only input; ``rows`` are then counted from the first that is there.
    """

    name: str
    operator: str | None
    inputs: Mapping[str, str]
    result: str
    rows: Rows
    pads: tuple[int, int] = (0, 0)

    @property
    def output(self) -> str:
        """The tensor that it writes: the whole one's name, with the tile behind it."""
        return self.name if self.operator is None else self.result + self.name.removeprefix(self.operator)


def pieces(
    graph: Graph, tileable: Mapping[str, Sweep], operators: Sequence[Operator], rows: Rows, suffix: str
) -> tuple[Piece, ...] | None:
    """The parts of ``operators`` that make these ``rows`` of the last one's result; their names end in ``suffix``.

    None where they cannot be made bit for bit: where paddings do not give them or a convolution would have too few rows;
    and where another operator's result is read by none of these.
    """
    halo = _Halo(graph, tileable, rows, suffix)
    if not all(halo.take(operator) for operator in reversed(operators)) or not halo.closed(operators):
        return None
    return tuple(halo.pieces(operators))


@dataclass(frozen=True, slots=True)
class _Halo:
    """What one tile needs, found backwards: the rows wanted of every tensor, and what each operator reads for it."""

    graph: Graph
    tileable: Mapping[str, Sweep]
    rows: Rows
    suffix: str
    wanted: dict[str, list[Rows]] = field(default_factory=dict)
    made: dict[str, Rows] = field(default_factory=dict)
    sources: dict[tuple[str, str], Source] = field(default_factory=dict)

    def take(self, operator: Operator) -> bool:
        """Add an operator, all of whose readers are there; False where it cannot make what they want."""
        result, sweep = operator.outputs[0], self.tileable[operator.name]
        if self.made and result not in self.wanted:
            return False
        span = self.made[result] = union(self.wanted[result]) if self.made else self.rows
        if span[1] - span[0] < sweep.least_rows:
            return False
        for name in operator.inputs:
            if name not in sweep.whole:
                source = sweep.window.source(span, self.graph.tensors[name].shape[AXIS])
                if source is None:
                    return False
                self.sources[operator.name, name] = source
                self.wanted.setdefault(name, []).append(source.rows)
        return True

    def closed(self, operators: Sequence[Operator]) -> bool:
        """Whether nothing that is read whole, in every tile, is made by tiles."""
        return not any(name in self.made for operator in operators for name in self.tileable[operator.name].whole)

    def pieces(self, operators: Sequence[Operator]) -> Iterator[Piece]:
        """The operators' parts in order, each behind the slices that it is the first to read."""
        sliced = set()
        for operator in operators:
            inputs, pads = {}, (0, 0)
            for name in operator.inputs:
                inputs[name] = held = f"{name}{self.suffix}" if name in self.made else name
                source = self.sources.get((operator.name, name))
                if source is None:
                    continue
                pads = source.pads
                first, stop = self.made.get(name, (0, self.graph.tensors[name].shape[AXIS]))
                if source.rows == (first, stop):
                    continue
                inputs[name] = part = f"{operators[0].name}{self.suffix}/{name}/rows{source.rows[0]}to{source.rows[1]}"
                if part not in sliced:
                    sliced.add(part)
                    rows = (source.rows[0] - first, source.rows[1] - first)
                    yield Piece(name=part, operator=None, inputs={name: held}, result=name, rows=rows)
            result = operator.outputs[0]
            yield Piece(
                name=f"{operator.name}{self.suffix}",
                operator=operator.name,
                inputs=inputs,
                result=result,
                rows=self.made[result],
                pads=pads,
            )


def tiles_of(
    graph: Graph, tileable: Mapping[str, Sweep], operators: Sequence[Operator], count: int, *, only: int | None = None
) -> tuple[tuple[Piece, ...], ...] | None:
    """The pieces of every tile (or of one ``only``) of the rows of the last operator's result; None where one has none."""
    height = graph.tensors[operators[-1].outputs[0]].shape[AXIS]
    if any(operator.name not in tileable for operator in operators) or count > height:
        return None
    found = []
    for index, rows in enumerate(tile_rows(height, count)):
        if only in (None, index):
            tile = pieces(graph, tileable, operators, rows, tile_suffix(index, count))
            if tile is None:
                return None
            found.append(tile)
    return tuple(found)


def tile_suffix(index: int, count: int) -> str:
    """What the names of a tile's operators and tensors end in, counted from one."""
    return f"/tile{index + 1}of{count}"


def is_tile(name: str) -> bool:
    """Whether an operator computes rows of one tile.

    onnxruntime keeps the memory of a tensor for the next of its shape, and tiles have each shape again and again: what one
    tile needs would stay while the next runs, once for every height.
    """
    return _TILE.search(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRows:
    """Compute every region tile by tile; ``threads`` is the most that a session may have. Shapes must be known."""

    regions: tuple[TileRegion, ...]
    threads: int

    def __call__(self, model: Model) -> Rewritten:
        """Tile; see the module. Raises `ValueError` for a region that cannot be tiled."""
        if not self.regions:
            return Rewritten(model=model)
        graph = view(model)
        tileable = sweeps(model, graph, self.threads)
        place = {operator.name: index for index, operator in enumerate(graph.operators)}
        writer = _Writer(model)
        changes, spans = [], {}
        for region in self.regions:
            start, stop = place[region.operators[0]], place[region.operators[-1]] + 1
            operators = graph.operators[start:stop]
            tiles = tiles_of(graph, tileable, operators, region.tiles)
            if tuple(operator.name for operator in operators) != region.operators or tiles is None:
                raise ValueError(
                    f"{region.operators[0]} to {region.operators[-1]} cannot be computed in {region.tiles} tiles"
                )
            spans[start] = (stop, list(writer.nodes(tiles, operators, tileable)))
            what = f"computed with what follows, up to {region.operators[-1]}, in {region.tiles} tiles of rows"
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
        self._opset = max(entry.version for entry in model.proto.opset_import if entry.domain in STANDARD_DOMAINS)

    def nodes(
        self, tiles: Sequence[Sequence[Piece]], operators: Sequence[Operator], tileable: Mapping[str, Sweep]
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
        yield helper.make_node("Concat", parts, [last.outputs[0]], f"{last.name}/tiles", axis=AXIS)

    def _part(self, piece: Piece, pads: tuple[int, ...] | None) -> NodeProto:
        node = NodeProto()
        node.CopyFrom(self._nodes[piece.operator or ""])
        node.name = piece.name
        node.input[:] = [piece.inputs.get(name, name) for name in node.input]
        node.output[:] = [piece.output]
        if pads is None:
            return node
        rank = len(pads) // 2
        axis = AXIS if node.op_type == "Pad" else 0
        amounts = [*pads]
        amounts[axis], amounts[rank + axis] = piece.pads
        if node.op_type == "Pad" and self._opset >= _PAD_INPUTS:
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
        if self._opset < _SLICE_INPUTS:
            return helper.make_node("Slice", [source], [piece.name], piece.name, axes=[AXIS], starts=[start], ends=[stop])
        bounds = [
            self._constant(f"{piece.name}/{what}", [value])
            for what, value in (("start", start), ("stop", stop), ("axis", AXIS))
        ]
        return helper.make_node("Slice", [source, *bounds], [piece.name], piece.name)

    def _constant(self, name: str, values: Sequence[int]) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name
