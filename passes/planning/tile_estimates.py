"""Estimate the memory of a run of operators in tiles, and the time that it takes beyond the untiled operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hyps.passes.cost.compute import SecondsArray, compute_s
from hyps.passes.cost.costs import Bytes, costs
from hyps.passes.cost.footprint import NODE_BYTES, footprints
from hyps.passes.cost.liveness import live_ranges
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph, Operator, Tensor
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.tiling.rules import TileAxis, TilingRules
from hyps.passes.tiling.tileable import tiling_rules
from hyps.passes.tiling.tiles import Piece, tile_rows, tiles_of

#: The numbers of tiles that are considered.
TILE_COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
#: The most operators in the tiles of all estimates together, which bounds the time of planning.
MAX_TRIED_OPERATORS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TileEstimate:
    """A run of operators in ``tiles``: the most live bytes, those of node definitions, and the extra seconds."""

    tile_axis: TileAxis
    tiles: int
    live_bytes: int
    node_bytes: int
    extra_s: float


class TileEstimates:
    """A cache of the estimates for one model: they do not depend on the budget."""

    def __init__(self, costed: CostedModel, threads: int, device: DeviceRates) -> None:
        self._model, self._graph, self._costs = costed.model, costed.graph, costed.costs
        self._threads, self._device = threads, device
        self._known: dict[tuple[int, int, TileAxis], list[TileEstimate | None]] = {}
        self._untried = MAX_TRIED_OPERATORS

    @cached_property
    def tileable(self) -> TilingRules:
        """The rules by which the graph's operators can be tiled."""
        return tiling_rules(self._model, self._graph, self._threads)

    def fewest_tiles(self, start: int, stop: int, along: TileAxis, budget_bytes: int) -> TileEstimate | None:
        """Return the run ``[start, stop)`` in the fewest tiles that keep within the budget; None if no number does."""
        weights = self._costs.process_bytes + int(self._costs.weights_from(start, stop)[-1])
        result = self._graph.tensors[self._graph.operators[stop - 1].outputs[0]]
        if weights + int(self._held_around[start]) + 2 * result.nbytes > budget_bytes:
            return None
        known = self._known.setdefault((start, stop, along), [])
        for index, count in enumerate(TILE_COUNTS):
            if index == len(known):
                known.append(self._estimate(start, stop, along, count))
            estimate = known[index]
            if estimate is None:
                return None
            if weights + estimate.live_bytes + estimate.node_bytes <= budget_bytes:
                return estimate
        return None

    def peak_bytes(self, start: int, stop: int, estimate: TileEstimate) -> int:
        """Return the process peak of the run ``[start, stop)`` in tiles, as a partition alone."""
        weights = int(self._costs.process_bytes + self._costs.weights_from(start, stop)[-1])
        return weights + estimate.live_bytes + estimate.node_bytes

    def whole_s(self, start: int, stop: int) -> float:
        """Return the seconds of the run ``[start, stop)`` without tiles."""
        return float(self._seconds_before[stop] - self._seconds_before[start])

    @cached_property
    def _held_around(self) -> Bytes:
        """The bytes held throughout a partition that starts at a position: the model's inputs and what crosses."""
        crossing = np.zeros(self._costs.count + 2, np.int64)
        for name, life in live_ranges(self._graph).items():
            if life.first >= 0:
                crossing[life.first + 1] += self._graph.tensors[name].nbytes
                crossing[life.last + 1] -= self._graph.tensors[name].nbytes
        return self._costs.input_bytes + np.cumsum(crossing)

    @cached_property
    def _seconds_before(self) -> SecondsArray:
        """The seconds that the operators before every position take."""
        return np.concatenate(([0.0], np.cumsum(compute_s(self._graph, self._device))))

    def _estimate(self, start: int, stop: int, along: TileAxis, count: int) -> TileEstimate | None:
        """Estimate ``count`` tiles from the largest; None where they are not possible or too many were tried."""
        operators, tileable = self._graph.operators[start:stop], self.tileable[along]
        result = self._graph.tensors[operators[-1].outputs[0]]
        self._untried -= stop - start
        largest = _largest_tile(result.shape[tileable[operators[-1].name].axis], count)
        tiles = tiles_of(self._graph, tileable, operators, count, only=largest) if self._untried > 0 else None
        if tiles is None or any(
            tiles_of(self._graph, tileable, operators, count, only=edge) is None for edge in (0, count - 1)
        ):
            return None
        tile = tile_graph(self._graph, operators, tiles[0])
        finished = result.nbytes - tile.tensors[tile.outputs[0]].nbytes
        tile_costs = costs(tile, footprints(tile, self._threads))
        making = int(tile_costs.activations_from(0)[-1]) - tile_costs.input_bytes + finished
        seconds = count * float(compute_s(tile, self._device).sum()) + 2 * result.nbytes / self._device.memory_bytes_per_s
        return TileEstimate(
            tile_axis=along,
            tiles=count,
            live_bytes=int(self._held_around[start]) + max(making, 2 * result.nbytes),
            node_bytes=NODE_BYTES * (count * len(tile.operators) - len(operators)),
            extra_s=max(0.0, seconds - self.whole_s(start, stop)),
        )


def _largest_tile(height: int, count: int) -> int:
    """Return the index of the largest tile; of several, the one nearest to the middle, as edge tiles read less."""
    sizes = [stop - start for start, stop in tile_rows(height, count)]
    return max(range(count), key=lambda index: (sizes[index], -abs(index - count // 2)))


def tile_graph(graph: Graph, operators: Sequence[Operator], tile: Sequence[Piece]) -> Graph:
    """Return the graph of one tile alone; its inputs are those of the region, whole."""
    whole: Mapping[str, Operator] = {operator.name: operator for operator in operators}
    made: dict[str, Tensor] = {}
    parts = []
    for piece in tile:
        tensor = graph.tensors[piece.result]
        shape = (*tensor.shape[: piece.axis], piece.rows[1] - piece.rows[0], *tensor.shape[piece.axis + 1 :])
        nbytes = tensor.nbytes // tensor.shape[piece.axis] * shape[piece.axis]
        made[piece.output] = Tensor(name=piece.output, dtype=tensor.dtype, shape=shape, nbytes=nbytes)
        source = whole.get(piece.operator or "")
        parts.append(
            Operator(
                name=piece.name,
                op_type=source.op_type if source else "Slice",
                inputs=tuple(dict.fromkeys(piece.inputs.values())),
                weights=source.weights if source else (),
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
