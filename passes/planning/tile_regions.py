"""Which operators to tile, and into how many tiles, so that a budget holds their activations: with the least extra work.

A dynamic program over the positions between operators that onnxruntime does not fuse. Operators that fit by themselves cost
nothing; a run with one that does not may become a region, in the fewest tiles that make it fit as a partition by itself. It
costs the estimated time beyond that of the whole operators (rows computed twice, slices, the joining of results). What a
region needs is the weights of all its operators, what is held around it, its finished tiles, and the largest tile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hyps.passes.cost.compute import SecondsArray, compute_s
from hyps.passes.cost.costs import Bytes, costs
from hyps.passes.cost.footprint import NODE_BYTES, footprints
from hyps.passes.cost.liveness import lifetimes
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.planning.partitioning import CostedModel
from hyps.passes.tiling.rewrite import TileRegion
from hyps.passes.tiling.rows import tile_rows
from hyps.passes.tiling.sweep import ALONG, Along, Sweeps
from hyps.passes.tiling.tileable import sweeps
from hyps.passes.tiling.tiles import Piece, tiles_of
from hyps.runtime.units import megabytes

#: How many tiles are tried.
TILE_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
#: Regions hold no more operators, and all that are tried have no more in their tiles: what bounds the time of planning.
REGION_OPERATORS, TRIED_OPERATORS = 64, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiled:
    """A run of operators in some tiles: the most live bytes, those of definitions, and seconds more than when whole."""

    along: Along
    tiles: int
    live_bytes: int
    node_bytes: int
    extra_s: float


class TileRegionSearch:
    """The regions of one model, whatever the budget; what was estimated for one is used for the next.

    Operators ``apart`` are left as they are: the user has them split.
    """

    def __init__(self, whole: CostedModel, threads: int, device: DeviceRates, apart: Collection[str] = ()) -> None:
        self._apart = apart
        self._graph, self._costs, self._sealed = whole.graph, whole.costs, whole.sealed
        self._model, self._threads, self._device = whole.model, threads, device
        self._known: dict[tuple[int, int, Along], list[Tiled | None]] = {}
        self._left = TRIED_OPERATORS

    def within(self, budget_bytes: int) -> tuple[TileRegion, ...]:
        """The regions that make as many operators as can be fit, with the least extra work; none where all fit."""
        hot = self._hot(budget_bytes)
        if not hot.any():
            return ()
        ends = self._ends
        hot_before = np.concatenate(([0], np.cumsum(hot)))
        best: list[tuple[int, float]] = [(0, 0.0)]
        came: list[tuple[int, Tiled | None]] = [(0, None)]
        for index in range(1, len(ends)):
            left, seconds = best[index - 1]
            best.append((left + int(hot[index - 1]), seconds))
            came.append((index - 1, None))
            for before in range(index - 1, -1, -1):
                start, stop = ends[before], ends[index]
                possible = [along for along in ALONG if start >= self._first[along][stop]]
                if stop - start > REGION_OPERATORS or not possible:
                    break
                if hot_before[before] == hot_before[index] or not self._has_one_result(start, stop):
                    continue
                for along in possible:
                    tiled = self._tiled(start, stop, along, budget_bytes)
                    found = (best[before][0], best[before][1] + tiled.extra_s) if tiled else None
                    if found is not None and found < best[index]:
                        best[index], came[index] = found, (before, tiled)
        chosen = []
        index = len(ends) - 1
        while index:
            before, tiled = came[index]
            if tiled is not None:
                chosen.append(self._region(ends[before], ends[index], tiled, budget_bytes))
            index = before
        return tuple(reversed(chosen))

    @cached_property
    def _tileable(self) -> Sweeps:
        return sweeps(self._model, self._graph, self._threads)

    @cached_property
    def _ends(self) -> list[int]:
        """The positions where a region may start or end."""
        return [position for position in range(self._costs.count + 1) if position not in self._sealed]

    @cached_property
    def _first(self) -> Mapping[Along, list[int]]:
        """For every position, where the run of operators that ends there and can be tiled along the same starts."""
        found = {}
        for along, tileable in self._tileable.items():
            possible = tileable.keys() - set(self._apart)
            found[along] = first = [0]
            for index, operator in enumerate(self._graph.operators):
                first.append(first[-1] if operator.name in possible else index + 1)
        return found

    @cached_property
    def _last(self) -> list[int]:
        """For every operator, where what it makes is read last."""
        lives = lifetimes(self._graph)
        return [
            max(lives[name].last for name in operator.outputs) if operator.outputs else -1
            for operator in self._graph.operators
        ]

    @cached_property
    def _around(self) -> Bytes:
        """The bytes held throughout a partition that starts at a position: the model's inputs and what crosses."""
        lives = lifetimes(self._graph)
        crossing = np.zeros(self._costs.count + 2, np.int64)
        for name, life in lives.items():
            if life.born >= 0:
                crossing[life.born + 1] += self._graph.tensors[name].nbytes
                crossing[life.last + 1] -= self._graph.tensors[name].nbytes
        return self._costs.input_bytes + np.cumsum(crossing)

    @cached_property
    def _seconds(self) -> SecondsArray:
        return np.concatenate(([0.0], np.cumsum(compute_s(self._graph, self._device))))

    def _hot(self, budget_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the runs between two neighbouring ends do not fit by themselves."""
        alone = self._costs.alone()
        beside = np.concatenate(([0], np.cumsum(alone - self._costs.process_bytes)))
        hot = np.zeros(len(self._ends) - 1, np.bool_)
        for index, (start, stop) in enumerate(zip(self._ends, self._ends[1:], strict=False)):
            if self._costs.process_bytes + beside[stop] - beside[start] > budget_bytes:
                hot[index] = self._costs.peaks_from(start, stop)[-1] > budget_bytes
        return hot

    def _has_one_result(self, start: int, stop: int) -> bool:
        return all(last < stop for last in self._last[start : stop - 1])

    def _tiled(self, start: int, stop: int, along: Along, budget_bytes: int) -> Tiled | None:
        """The run in the fewest tiles that fit."""
        base = self._costs.process_bytes + int(self._costs.weights_from(start, stop)[-1])
        result = self._graph.tensors[self._graph.operators[stop - 1].outputs[0]]
        if base + int(self._around[start]) + 2 * result.nbytes > budget_bytes:
            return None
        known = self._known.setdefault((start, stop, along), [])
        for index, count in enumerate(TILE_COUNTS):
            if index == len(known):
                known.append(self._estimated(start, stop, along, count))
            tiled = known[index]
            if tiled is None:
                return None
            if base + tiled.live_bytes + tiled.node_bytes <= budget_bytes:
                return tiled
        return None

    def _estimated(self, start: int, stop: int, along: Along, count: int) -> Tiled | None:
        operators, tileable = self._graph.operators[start:stop], self._tileable[along]
        result = self._graph.tensors[operators[-1].outputs[0]]
        self._left -= stop - start
        largest = _largest(result.shape[tileable[operators[-1].name].axis], count)
        tiles = tiles_of(self._graph, tileable, operators, count, only=largest) if self._left > 0 else None
        if tiles is None or any(
            tiles_of(self._graph, tileable, operators, count, only=edge) is None for edge in (0, count - 1)
        ):
            return None
        tile = tile_graph(self._graph, operators, tiles[0])
        finished = result.nbytes - tile.tensors[tile.outputs[0]].nbytes
        found = costs(tile, footprints(tile, self._threads))
        making = int(found.activations_from(0)[-1]) - found.input_bytes + finished
        seconds = count * float(compute_s(tile, self._device).sum()) + 2 * result.nbytes / self._device.memory_bytes_per_s
        return Tiled(
            along=along,
            tiles=count,
            live_bytes=int(self._around[start]) + max(making, 2 * result.nbytes),
            node_bytes=NODE_BYTES * (count * len(tile.operators) - len(operators)),
            extra_s=max(0.0, seconds - float(self._seconds[stop] - self._seconds[start])),
        )

    def _region(self, start: int, stop: int, tiled: Tiled, budget_bytes: int) -> TileRegion:
        worst = max(
            range(start, stop), key=lambda at: int(self._costs.live[at] + self._costs.workspace[at] - self._costs.reused[at])
        )
        first = max(end for end in self._ends if end <= worst)
        needed = int(self._costs.peaks_from(first, min(end for end in self._ends if end > worst))[-1])
        peak = (
            int(self._costs.process_bytes + self._costs.weights_from(start, stop)[-1]) + tiled.live_bytes + tiled.node_bytes
        )
        more = tiled.extra_s / max(float(self._seconds[stop] - self._seconds[start]), math.ulp(0.0))
        reason = (
            f"{self._graph.operators[worst].name} needs {megabytes(needed)} by itself, more than {megabytes(budget_bytes)}; "
            f"in tiles of {tiled.along} all of these need {megabytes(peak)}, for {more:.0%} more of their time"
        )
        names = tuple(operator.name for operator in self._graph.operators[start:stop])
        return TileRegion(operators=names, tiles=tiled.tiles, along=tiled.along, reason=reason)


def _largest(height: int, count: int) -> int:
    """The largest tile, the one nearest to the middle: those at the edges read less."""
    sizes = [stop - start for start, stop in tile_rows(height, count)]
    return max(range(count), key=lambda index: (sizes[index], -abs(index - count // 2)))


def tile_graph(graph: Graph, operators: Sequence[Operator], tile: Sequence[Piece]) -> Graph:
    """The graph of one tile by itself: the inputs are those of the region, whole."""
    whole = {operator.name: operator for operator in operators}
    made: dict[str, Tensor] = {}
    parts = []
    for piece in tile:
        tensor = graph.tensors[piece.result]
        shape = (*tensor.shape[: piece.axis], piece.rows[1] - piece.rows[0], *tensor.shape[piece.axis + 1 :])
        nbytes = tensor.nbytes // tensor.shape[piece.axis] * shape[piece.axis]
        made[piece.output] = Tensor(name=piece.output, dtype=tensor.dtype, shape=shape, nbytes=nbytes)
        of = whole.get(piece.operator or "")
        parts.append(
            Operator(
                name=piece.name,
                op_type=of.op_type if of else "Slice",
                inputs=tuple(dict.fromkeys(piece.inputs.values())),
                weights=of.weights if of else (),
                outputs=(piece.output,),
            )
        )
    read = dict.fromkeys(name for part in parts for name in part.inputs if name not in made)
    return Graph(
        operators=tuple(parts),
        tensors={name: graph.tensors[name] for name in read} | made,
        weights={name: graph.weights[name] for part in parts for name in part.weights},
        inputs=tuple(read),
        outputs=(parts[-1].outputs[0],),
    )
