"""Tiles: several operators, computed some rows or some heads at a time, so that their large tensors never exist as a whole.

Hadidi, sections 4.2 and 4.3 (spatial splits); fused over layers as in DeepThings (Zhao et al., 2018). A *region* is a run
of operators, any graph inside, with one result::

    x ─ conv ─ relu ─ conv ─ pool ─ y       x ┬─ rows 0..9  ─ conv ─ relu ─ conv ─ pool ─ rows 0..3 ─┐
                                              ├─ rows 6..17 ─ conv ─ relu ─ conv ─ pool ─ rows 4..7 ─┼─ Concat ─ y
                                              └─ ...                                                ─┘

Each tile of the result needs some rows of what is read for it, and so on back to the region's inputs, which are sliced. Rows
that two tiles need are computed twice. Of attention, a tile is some heads: nothing is computed twice, and scores exist for
those heads alone. Here is what each tile is made of; `hyps.passes.tiling.rewrite` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.passes.graph import Graph, Operator
from hyps.passes.tiling.rows import Rows, SourceRows, tile_rows, union
from hyps.passes.tiling.sweep import Sweep
from hyps.passes.weights import part_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One operator's part in a tile. ``inputs``: what the whole operator's are called here; ``rows``: which it makes.

    They are those along its result's ``axis``, rows or heads. Without an ``operator`` it slices its only input; ``rows`` are
    then counted from the first that is there.
    """

    name: str
    operator: str | None
    inputs: Mapping[str, str]
    result: str
    axis: int
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
    sources: dict[tuple[str, str], SourceRows] = field(default_factory=dict)

    def take(self, operator: Operator) -> bool:
        """Add an operator, all of whose readers are there; False where it cannot make what they want."""
        result, sweep = operator.outputs[0], self.tileable[operator.name]
        if self.made and result not in self.wanted:
            return False
        span = self.made[result] = union(self.wanted[result]) if self.made else self.rows
        if span[1] - span[0] < sweep.least:
            return False
        for name in operator.inputs:
            if name not in sweep.whole:
                source = sweep.window.source(span, self.graph.tensors[name].shape[sweep.source_axis])
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
            sweep, inputs, pads = self.tileable[operator.name], {}, (0, 0)
            for name in operator.inputs:
                inputs[name] = held = f"{name}{self.suffix}" if name in self.made else name
                source = self.sources.get((operator.name, name))
                if source is None:
                    continue
                pads = source.pads
                first, stop = self.made.get(name, (0, self.graph.tensors[name].shape[sweep.source_axis]))
                if source.rows == (first, stop):
                    continue
                which = f"{sweep.along}{source.rows[0]}to{source.rows[1]}"
                inputs[name] = part = f"{operators[0].name}{self.suffix}/{name}/{which}"
                if part not in sliced:
                    sliced.add(part)
                    rows = (source.rows[0] - first, source.rows[1] - first)
                    yield Piece(
                        name=part, operator=None, inputs={name: held}, result=name, axis=sweep.source_axis, rows=rows
                    )
            result = operator.outputs[0]
            yield Piece(
                name=f"{operator.name}{self.suffix}",
                operator=operator.name,
                inputs=inputs,
                result=result,
                axis=sweep.axis,
                rows=self.made[result],
                pads=pads,
            )


def tiles_of(
    graph: Graph, tileable: Mapping[str, Sweep], operators: Sequence[Operator], count: int, *, only: int | None = None
) -> tuple[tuple[Piece, ...], ...] | None:
    """The pieces of every tile (or of one ``only``) of the last operator's result; None where one has none."""
    if any(operator.name not in tileable for operator in operators):
        return None
    height = graph.tensors[operators[-1].outputs[0]].shape[tileable[operators[-1].name].axis]
    if count > height:
        return None
    found = []
    for index, rows in enumerate(tile_rows(height, count)):
        if only in (None, index):
            tile = pieces(graph, tileable, operators, rows, part_name("", "tile", index, count))
            if tile is None:
                return None
            found.append(tile)
    return tuple(found)
