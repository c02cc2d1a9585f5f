"""Choose which operators to tile, and into how many tiles, so that they fit a budget with the least extra work.

The search is a dynamic program over the positions between operators that onnxruntime does not fuse. Operators that fit
alone cost nothing. A run with an operator that does not fit may become a region, in the fewest tiles with which the region
fits as a partition alone. A region costs its estimated time beyond that of the untiled operators: rows computed twice,
slices, and joining the results. Its memory is the weights of all its operators, the tensors held around it, its finished
tiles, and the largest tile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.liveness import live_ranges
from hyps.passes.device import DeviceRates
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.tile_estimates import TileEstimate, TileEstimates
from hyps.passes.tiling.rewrite import TileRegion
from hyps.passes.tiling.rules import TILE_AXES, TileAxis
from hyps.runtime.units import megabytes, megabytes_down, megabytes_up

#: A region holds no more operators than this, which bounds the time of planning.
MAX_REGION_OPERATORS = 64


@dataclass(frozen=True, slots=True)
class _Choice:
    """The best regions up to one end of the dynamic program: runs that still do not fit, extra seconds, and the last step.

    That step leads from the end with the index ``previous``: a region in tiles, or whole operators where ``tiling`` is None.
    """

    oversize: int
    extra_s: float
    previous: int = 0
    tiling: TileEstimate | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """The lower the better."""
        return self.oversize, self.extra_s


class TileRegionSearch:
    """The search for regions of one model; estimates for one budget are reused for the next.

    Operators in ``excluded`` are never tiled: the user has them split.
    """

    def __init__(self, costed: CostedModel, threads: int, device: DeviceRates, excluded: Collection[str] = ()) -> None:
        self._graph, self._costs, self._sealed = costed.graph, costed.costs, costed.sealed
        self._excluded = excluded
        self._estimates = TileEstimates(costed, threads, device)

    def best_regions(self, budget_bytes: int) -> tuple[TileRegion, ...]:
        """Return the regions that make as many operators as possible fit, with the least extra work; none where all fit."""
        oversize = self._oversize(budget_bytes)
        if not oversize.any():
            return ()
        oversize_before = np.concatenate(([0], np.cumsum(oversize)))
        choices = [_Choice(0, 0.0)]
        for end in range(1, len(self._ends)):
            last = choices[-1]
            whole = _Choice(last.oversize + int(oversize[end - 1]), last.extra_s, end - 1)
            tiled = self._tiled_choices(choices, oversize_before, budget_bytes)
            choices.append(min([whole, *tiled], key=lambda choice: choice.rank))
        regions = []
        end = len(choices) - 1
        while end:
            choice = choices[end]
            if choice.tiling is not None:
                regions.append(self._region(self._ends[choice.previous], self._ends[end], choice.tiling, budget_bytes))
            end = choice.previous
        return tuple(reversed(regions))

    def _tiled_choices(
        self, choices: Sequence[_Choice], oversize_before: NDArray[np.int64], budget_bytes: int
    ) -> Iterator[_Choice]:
        """Yield the choices whose last step is a region that ends at the next end; the shortest regions first."""
        end = len(choices)
        stop = self._ends[end]
        for previous in range(end - 1, -1, -1):
            start = self._ends[previous]
            possible = [along for along in TILE_AXES if start >= self._first[along][stop]]
            if stop - start > MAX_REGION_OPERATORS or not possible:
                return
            if oversize_before[previous] == oversize_before[end] or not self._has_one_result(start, stop):
                continue
            before = choices[previous]
            for along in possible:
                if tiling := self._estimates.fewest_tiles(start, stop, along, budget_bytes):
                    yield _Choice(before.oversize, before.extra_s + tiling.extra_s, previous, tiling)

    @cached_property
    def _ends(self) -> list[int]:
        """The positions where a region may start or end."""
        return [position for position in range(self._costs.count + 1) if position not in self._sealed]

    @cached_property
    def _first(self) -> Mapping[TileAxis, list[int]]:
        """For every position, the start of the longest run that ends there and can be tiled along one axis."""
        starts = {}
        for along, tileable in self._estimates.tileable.items():
            possible = tileable.keys() - set(self._excluded)
            starts[along] = first = [0]
            for index, operator in enumerate(self._graph.operators):
                first.append(first[-1] if operator.name in possible else index + 1)
        return starts

    @cached_property
    def _last_read(self) -> list[int]:
        """For every operator, the last one that reads its results."""
        lives = live_ranges(self._graph)
        return [max((lives[name].last for name in operator.outputs), default=-1) for operator in self._graph.operators]

    def _oversize(self, budget_bytes: int) -> NDArray[np.bool_]:
        """Return for the runs between two neighbouring ends whether they do not fit alone."""
        alone = self._costs.alone()
        own_before = np.concatenate(([0], np.cumsum(alone - self._costs.process_bytes)))
        oversize = np.zeros(len(self._ends) - 1, np.bool_)
        for index, (start, stop) in enumerate(zip(self._ends, self._ends[1:], strict=False)):
            if self._costs.process_bytes + own_before[stop] - own_before[start] > budget_bytes:
                oversize[index] = self._costs.peaks_from(start, stop)[-1] > budget_bytes
        return oversize

    def _has_one_result(self, start: int, stop: int) -> bool:
        """Return whether operators after the run ``[start, stop)`` read nothing of it but its last operator's results."""
        return all(last < stop for last in self._last_read[start : stop - 1])

    def _region(self, start: int, stop: int, tiling: TileEstimate, budget_bytes: int) -> TileRegion:
        """Return the region with its reason: the operator in it that needs most."""
        needs = self._costs.live + self._costs.workspace - self._costs.in_place
        worst = max(range(start, stop), key=lambda index: int(needs[index]))
        first = max(end for end in self._ends if end <= worst)
        needed = int(self._costs.peaks_from(first, min(end for end in self._ends if end > worst))[-1])
        peak = self._estimates.peak_bytes(start, stop, tiling)
        extra = tiling.extra_s / max(self._estimates.whole_s(start, stop), math.ulp(0.0))
        reason = (
            f"{self._graph.operators[worst].name} alone needs {megabytes_up(needed)}, more than "
            f"{megabytes_down(budget_bytes)}; in tiles of {tiling.tile_axis} this region needs {megabytes(peak)} and takes "
            f"{extra:.0%} more time"
        )
        names = tuple(operator.name for operator in self._graph.operators[start:stop])
        return TileRegion(operators=names, tiles=tiling.tiles, tile_axis=tiling.tile_axis, reason=reason)
