"""Tiles: runs of operators computed some rows or some heads at a time, so that their large tensors never exist whole.

Hadidi, sections 4.2 and 4.3 (spatial splits); fused over layers as in DeepThings (Zhao et al., 2018). A *region* is a run
of consecutive operators, any graph inside, with one result::

    x ─ conv ─ relu ─ conv ─ pool ─ y       x ┬─ rows 0..9  ─ conv ─ relu ─ conv ─ pool ─ rows 0..3 ─┐
                                              ├─ rows 6..17 ─ conv ─ relu ─ conv ─ pool ─ rows 4..7 ─┼─ Concat ─ y
                                              └─ ...                                                ─┘

A tile of the result needs some rows of each tensor that is read for it, and so on back to the region's inputs, which are
sliced. Rows that two tiles need (the halo) are computed twice. A tile of attention is some heads: nothing is computed twice,
and scores exist for those heads alone. This module finds the pieces of each tile; `hyps.passes.tiling.rewrite` writes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyps.passes.graph import Graph, Operator
from hyps.passes.receptive_field import InputRows, Rows
from hyps.passes.tiling.rules import TilingRule
from hyps.passes.weights import part_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One operator's part in a tile: it makes ``rows`` along ``axis`` of the ``result`` (rows or heads).

    ``inputs`` gives, for each input of the whole operator, the tensor that the piece reads. Without an ``operator`` the
    piece is a Slice of its only input; ``rows`` then count from the first row of that input. ``pads`` are the rows of
    padding before and after.
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
        """The tensor that the piece writes: the whole tensor's name with the tile's suffix."""
        return self.name if self.operator is None else self.result + self.name.removeprefix(self.operator)


def tiles_of(
    graph: Graph, rules: Mapping[str, TilingRule], operators: Sequence[Operator], count: int, *, only: int | None = None
) -> tuple[tuple[Piece, ...], ...] | None:
    """Return the pieces of ``count`` tiles of the last operator's result, or of the tile ``only``.

    ``rules`` are those along one tile axis. It is None where an operator has no rule or a tile cannot be computed.
    """
    if any(operator.name not in rules for operator in operators):
        return None
    height = graph.tensors[operators[-1].outputs[0]].shape[rules[operators[-1].name].axis]
    if count > height:
        return None
    tiles = []
    for index, rows in enumerate(tile_rows(height, count)):
        if only in (None, index):
            tile = pieces(graph, rules, operators, rows, part_name("", "tile", index, count))
            if tile is None:
                return None
            tiles.append(tile)
    return tuple(tiles)


def tile_rows(height: int, count: int) -> tuple[Rows, ...]:
    """Return ``height`` rows in ``count`` tiles, as equal as can be."""
    bounds = [height * index // count for index in range(count + 1)]
    return tuple(itertools.pairwise(bounds))


def hull(spans: Iterable[Rows]) -> Rows:
    """Return the rows from the first to the last of any of ``spans``."""
    starts, stops = zip(*spans, strict=True)
    return min(starts), max(stops)


def pieces(
    graph: Graph, rules: Mapping[str, TilingRule], operators: Sequence[Operator], rows: Rows, suffix: str
) -> tuple[Piece, ...] | None:
    """Return the parts of ``operators`` that make ``rows`` of the last one's result; their names end in ``suffix``.

    It is None where they cannot be made bit for bit: padding does not give them, or a convolution would have too few rows.
    It is None, too, where none of the operators reads the result of one that is not the last.
    """
    halo = _Halo(graph, rules, rows, suffix)
    if not all(halo.add(operator) for operator in reversed(operators)) or halo.broadcasts_a_tile(operators):
        return None
    return tuple(halo.pieces(operators))


class _Halo:
    """The rows that one tile needs, collected from the last operator back."""

    def __init__(self, graph: Graph, rules: Mapping[str, TilingRule], rows: Rows, suffix: str) -> None:
        self._graph, self._rules, self._rows, self._suffix = graph, rules, rows, suffix
        #: The rows that operators read of a tensor; the rows that the tile computes of it.
        self._required: dict[str, list[Rows]] = {}
        self._computed: dict[str, Rows] = {}
        #: What an operator reads of an input, by their names.
        self._sources: dict[tuple[str, str], InputRows] = {}

    def add(self, operator: Operator) -> bool:
        """Add an operator all of whose readers were added; return whether it can make what they need."""
        result, rule = operator.outputs[0], self._rules[operator.name]
        if self._computed and result not in self._required:
            return False
        rows = self._computed[result] = hull(self._required[result]) if self._computed else self._rows
        if rows[1] - rows[0] < rule.min_extent:
            return False
        for name in operator.inputs:
            if name not in rule.broadcast_inputs:
                source = rule.window.input_rows(rows, self._graph.tensors[name].shape[rule.source_axis])
                if source is None:
                    return False
                self._sources[operator.name, name] = source
                self._required.setdefault(name, []).append(source.rows)
        return True

    def broadcasts_a_tile(self, operators: Sequence[Operator]) -> bool:
        """Return whether an operator reads entirely, in every tile, what the tiles compute in parts."""
        return any(name in self._computed for operator in operators for name in self._rules[operator.name].broadcast_inputs)

    def pieces(self, operators: Sequence[Operator]) -> Iterator[Piece]:
        """Yield the operators' parts in order, each after the slices that it is the first to read."""
        sliced = set()
        for operator in operators:
            rule, inputs, pads = self._rules[operator.name], {}, (0, 0)
            for name in operator.inputs:
                inputs[name] = f"{name}{self._suffix}" if name in self._computed else name
                source = self._sources.get((operator.name, name))
                if source is None:
                    continue
                pads = source.pads
                piece = self._slice(name, inputs[name], source.rows, rule, operators[0].name)
                if piece is not None:
                    inputs[name] = piece.name
                    if piece.name not in sliced:
                        sliced.add(piece.name)
                        yield piece
            result = operator.outputs[0]
            yield Piece(
                name=f"{operator.name}{self._suffix}",
                operator=operator.name,
                inputs=inputs,
                result=result,
                axis=rule.axis,
                rows=self._computed[result],
                pads=pads,
            )

    def _slice(self, name: str, tensor: str, rows: Rows, rule: TilingRule, region: str) -> Piece | None:
        """Return the Slice that gives ``rows`` of the whole ``name`` from ``tensor``; None where it holds just these rows.

        The name of the ``region``'s first operator is part of its own, so that two regions may slice one tensor.
        """
        start, stop = self._computed.get(name, (0, self._graph.tensors[name].shape[rule.source_axis]))
        if rows == (start, stop):
            return None
        return Piece(
            name=f"{region}{self._suffix}/{name}/{rule.tile_axis}{rows[0]}to{rows[1]}",
            operator=None,
            inputs={name: tensor},
            result=name,
            axis=rule.source_axis,
            rows=(rows[0] - start, rows[1] - start),
        )
