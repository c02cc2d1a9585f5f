"""Find the best placement by a dynamic program over the position in the steps and the boards used of each group.

It is exact for a star (`hyps.runtime.cluster.planning.board_groups.is_star`) over all placements in runs of steps, where a
run is on one board, on replicas of any groups, or on shards side by side. The cost of a stage then depends on its own run
and boards alone, so that

    period(n boards, b steps)  = min over the last stage of max(period(the boards and steps before it), the stage's period)
    latency(n boards, b steps) = min over the last stage of latency(the boards and steps before it) + the stage's latency

The best throughput is found first; then, among the stages whose period is no longer, the least latency. Energy is static
power times period plus dynamic joules: a branch and bound over the period, which must be that of some stage.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hyps.runtime.cluster.planning.problem import PipelineStage, Stages
from hyps.runtime.cluster.planning.run_table import CostArray
from hyps.runtime.cluster.planning.stage_options import ShardedStage, StageOptions

Objective = Literal["throughput", "latency", "energy"]
#: The largest relative difference of two sums of the same numbers in different orders.
_ROUNDING = 1e-12
#: Bytes break ties: all bytes that can cross count as this part of the latency.
_TIE = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """The cheapest stage of every (choice, start, stop) under a limit, and the shards that are cheaper than replicas."""

    costs: CostArray
    sharded: dict[tuple[int, int, int], ShardedStage]


class ExactPlanner:
    """The dynamic program for one workload and star; ``hub_watts`` is the power besides the boards'."""

    def __init__(self, options: StageOptions, hub_watts: float) -> None:
        self._options, self._hub_watts = options, hub_watts
        self._count = options.table.count
        places = {counts: place for place, counts in enumerate(options.choices)}
        self._before: list[tuple[list[int], list[int]]] = []
        for counts in options.choices:
            last = [each for each in itertools.product(*(range(count + 1) for count in counts)) if any(each)]
            before = [tuple(count - used for count, used in zip(counts, each, strict=True)) for each in last]
            self._before.append(([places[each] for each in before], [places[each] for each in last]))
        finite = options.nbytes[np.isfinite(options.nbytes)]
        self._byte_cost = _TIE / max(float(finite.max(initial=1.0)) * self._count, 1.0)
        self._cheapest: dict[tuple[bool, float], CostArray] = {}

    def best(self, objective: Objective, most_boards: int) -> Stages | None:
        """Return the best placement on at most this many boards, or None if there is none."""
        within = [place for place, counts in enumerate(self._options.choices) if 0 < sum(counts) <= most_boards]
        within.sort(key=lambda place: sum(self._options.choices[place]))
        if objective == "energy":
            return self._least_energy(within)
        limit = float(self._smallest_periods[within, self._count].min()) if objective == "throughput" else np.inf
        if objective == "throughput" and not np.isfinite(limit):
            return None
        return self._cheapest_stages(within, limit * (1 + _ROUNDING), energy=False)

    def _cheapest_stages(self, within: Sequence[int], limit: float, *, energy: bool) -> Stages | None:
        costs = self._costs(limit, energy=energy)[within, self._count]
        least = float(costs.min())
        if not np.isfinite(least):
            return None
        place = next(place for place, cost in zip(within, costs, strict=True) if cost <= least * (1 + _ROUNDING))
        return self._trace(place, limit, energy=energy)

    @property
    def _smallest_periods(self) -> CostArray:
        """The smallest period by (choice of boards, number of steps)."""
        if (True, -1.0) not in self._cheapest:
            stages = self._options.period_s.copy()
            for each in self._options.sharded:
                key = each.choice, each.start, each.stop
                stages[key] = min(stages[key], each.figures.period_s)
            self._cheapest[True, -1.0] = self._solve(stages, np.maximum)
        return self._cheapest[True, -1.0]

    def _costs(self, limit: float, *, energy: bool) -> CostArray:
        """Return the least latency, or energy, by (choice of boards, steps), of stages with periods up to a limit."""
        if (energy, limit) not in self._cheapest:
            self._cheapest[energy, limit] = self._solve(self._stages(limit, energy=energy).costs, np.add)
        return self._cheapest[energy, limit]

    def _stages(self, limit: float, *, energy: bool) -> _Stages:
        options = self._options
        additive = options.dynamic_j if energy else options.latency_s + self._byte_cost * options.nbytes
        costs = np.where(options.period_s <= limit, additive, np.inf)
        cheaper: dict[tuple[int, int, int], ShardedStage] = {}
        for each in options.sharded:
            figures, key = each.figures, (each.choice, each.start, each.stop)
            cost = figures.dynamic_j if energy else figures.latency_s + self._byte_cost * figures.nbytes
            if figures.period_s <= limit and cost < costs[key]:
                costs[key] = cost
                cheaper[key] = each
        return _Stages(costs=costs, sharded=cheaper)

    def _solve(self, stages: CostArray, join: np.ufunc) -> CostArray:
        """Return the least joined costs of stages that hold the first steps, by (choice of boards, number of steps)."""
        best = np.full((len(self._options.choices), self._count + 1), np.inf)
        best[0, 0] = 0.0
        for place, (before, last) in enumerate(self._before):
            for start in range(0, len(before), 64):
                prior = best[before[start : start + 64], : self._count, None]
                joined = join(prior, stages[last[start : start + 64]])
                best[place] = np.minimum(best[place], joined.min(axis=(0, 1)))
        return best

    def _trace(self, place: int, limit: float, *, energy: bool) -> Stages:
        """Return the stages that give the least cost, with names of boards."""
        stages, best = self._stages(limit, energy=energy), self._costs(limit, energy=energy)
        found: list[tuple[int, int, int]] = []
        stop = self._count
        while stop:
            before, last = self._before[place]
            joined = best[before, : self._count] + stages.costs[last, :, stop]
            at, start = np.unravel_index(int(joined.argmin()), joined.shape)
            found.append((last[at], int(start), stop))
            place, stop = before[at], int(start)
        return tuple(self._named(reversed(found), stages.sharded))

    def _named(
        self, found: Iterator[tuple[int, int, int]], sharded: dict[tuple[int, int, int], ShardedStage]
    ) -> Iterator[PipelineStage]:
        free = [iter(group.boards) for group in self._options.groups]
        for choice, start, stop in found:
            counts = self._options.choices[choice]
            names = tuple(next(free[group]).name for group, count in enumerate(counts) for _ in range(count))
            shards = sharded.get((choice, start, stop))
            if shards:
                yield PipelineStage(steps=range(start, stop), boards=names, sharing="shards", shares=shards.shares)
            else:
                yield PipelineStage(
                    steps=range(start, stop), boards=names, sharing="alone" if len(names) == 1 else "replicas"
                )

    def _least_energy(self, within: Sequence[int]) -> Stages | None:
        """Return the placement with the least energy: of intervals of the period, the one with the least bound is halved."""
        options = self._options
        watts = [self._hub_watts + sum(n * g.sample.idle_watts for n, g in zip(counts, options.groups, strict=True))
                 for counts in options.choices]  # fmt: skip
        static = np.array([watts[place] for place in within])
        periods = np.unique(
            [*options.period_s[np.isfinite(options.period_s)], *(s.figures.period_s for s in options.sharded)]
        )

        def energy(period: float, limit: float) -> float:
            costs = self._costs(limit * (1 + _ROUNDING), energy=True)[within, self._count]
            return float((static * period + costs).min(initial=np.inf))

        if not len(periods) or not np.isfinite(energy(0.0, periods[-1])):
            return None
        best, limit = min((energy(periods[at], periods[at]), periods[at]) for at in (0, len(periods) - 1))
        queue = [(energy(periods[0], periods[-1]), 0, len(periods) - 1)]
        while queue:
            bound, low, high = heapq.heappop(queue)
            if bound >= best * (1 - _ROUNDING) or high - low < 2:
                break
            middle = (low + high) // 2
            best, limit = min((best, limit), (energy(periods[middle], periods[middle]), periods[middle]))
            for one, other in ((low, middle), (middle, high)):
                if other - one > 1:
                    heapq.heappush(queue, (energy(periods[one], periods[other]), one, other))
        costs = self._costs(limit * (1 + _ROUNDING), energy=True)[within, self._count]
        place = within[int((static * limit + costs).argmin())]
        return self._trace(place, limit * (1 + _ROUNDING), energy=True)
