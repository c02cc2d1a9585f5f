"""Choose where to cut a graph in a given execution order; a cut may carry several tensors.

Some cuts are required: around operators that were split (Kaboubi's Algorithm 1, section 3.2.5), after poolings (Algorithm
2), after every layer (the pre-qualification run of section 4.3.1); see `hyps.passes.planning.required_cuts`. `best_cuts`
makes these cuts and adds the ones that the budget needs. A dynamic program over the order searches the plans whose every
peak is within the budget. It takes the plan with the fewest cuts between operators that onnxruntime fuses; of several, the
one with the least estimated latency (`hyps.passes.cost.latency`).

Exits are required cuts, too. So the operators between two exits are cut apart from all others, and all their plans are run
by the same part of the inferences: the cuts of the least latency are those of the least mean over exits, whatever the rates.
Rates matter where steps compete for memory (`hyps.passes.cost.residency`).

The search is exact up to `EXACT_OPERATORS`. A longer graph is divided into that many blocks of operators, and only one
position of each block is considered at first: the one where the fewest bytes cross. If that finds no plan, or only one that
separates fused operators, all positions are considered. So a plan is found whenever there is one, and fused operators are
separated only if every plan separates some.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection
from functools import cached_property

import numpy as np

from hyps.passes.cost.costs import Costs
from hyps.passes.cost.latency import Latency, Positions
from hyps.passes.planning.feasibility import bisect_first, is_feasible, longest_partition

#: Graphs of up to this many operators have every position considered; longer ones, at first, this many positions.
EXACT_OPERATORS = 800


def best_cuts(
    costs: Costs, latency: Latency, sealed: Collection[int], required: Collection[int], budget_bytes: int
) -> tuple[int, ...] | None:
    """Return the best cut positions within the budget, without the two ends; None when no choice keeps within it.

    ``required`` positions are always cut. ``sealed`` ones separate fused operators: any number of other cuts is
    better than one of these.
    """
    return CutSearch(costs, latency, sealed, required).best(budget_bytes)


class CutSearch:
    """A search for the best cuts of one graph, for any number of budgets; see `best_cuts`."""

    def __init__(self, costs: Costs, latency: Latency, sealed: Collection[int], required: Collection[int]) -> None:
        self._costs, self._latency, self._sealed = costs, latency, sealed
        self._required = tuple(sorted(required))

    @cached_property
    def _joined_peak(self) -> int:
        """The process peak with no other cuts than those required."""
        ends = itertools.pairwise((0, *self._required, self._costs.count))
        return max(self._costs.peak(start, stop) for start, stop in ends)

    @cached_property
    def _promising(self) -> Positions:
        return _promising(self._costs, self._sealed, self._required)

    def best(self, budget_bytes: int) -> tuple[int, ...] | None:
        """Return the best cut positions within the budget; None when no choice keeps within it."""
        costs, sealed, required = self._costs, self._sealed, self._required
        if self._joined_peak <= budget_bytes:
            return required  # joined partitions never take longer
        if not is_feasible(costs, required, budget_bytes):
            return None
        if costs.count > EXACT_OPERATORS:
            cuts = _search(costs, self._latency, sealed, required, budget_bytes, self._promising)
            if cuts is not None and not set(cuts) - set(required) & set(sealed):
                return cuts
        return _search(costs, self._latency, sealed, required, budget_bytes, np.arange(costs.count + 1, dtype=np.int64))


def _promising(costs: Costs, sealed: Collection[int], required: tuple[int, ...]) -> Positions:
    """Return the unsealed position of every block of operators where the fewest bytes cross; both ends; all ``required``."""
    crossing = costs.crossing.astype(np.float64)
    crossing[list(sealed)] = np.inf
    starts = np.linspace(0, costs.count, EXACT_OPERATORS + 1).astype(np.int64)
    best = {int(first + crossing[first:stop].argmin()) for first, stop in itertools.pairwise(starts)}
    return np.array(sorted({0, costs.count, *required, *best} - ({*sealed} - {*required})), np.int64)


def _search(
    costs: Costs,
    latency: Latency,
    sealed: Collection[int],
    required: tuple[int, ...],
    budget_bytes: int,
    positions: Positions,
) -> tuple[int, ...] | None:
    """Return the best cuts at ``positions`` only, which are ascending and hold both ends and all ``required``."""
    unreached = np.iinfo(np.int64).max
    separated = np.full(len(positions), unreached, np.int64)  # cuts between fused operators, up to each position
    seconds = np.full(len(positions), np.inf)
    previous = np.zeros(len(positions), np.int64)
    separated[0] = seconds[0] = 0
    barriers = [*required, costs.count]
    length = 1
    for index, start in enumerate(positions[:-1].tolist()):
        if separated[index] == unreached:
            continue
        length = longest_partition(costs, start, barriers[bisect_right(barriers, start)], budget_bytes, length)
        stops = slice(index + 1, int(np.searchsorted(positions, start + length, side="right")))
        if stops.start >= stops.stop:
            continue
        weights = costs.weights_from(start, start + length)[positions[stops] - start - 1]
        new_seconds = seconds[index] + latency.partitions_s(start, positions[stops], weights)
        new_separated = separated[index] + (start in sealed)
        better = (new_separated < separated[stops]) | ((new_separated == separated[stops]) & (new_seconds < seconds[stops]))
        separated[stops][better] = new_separated
        seconds[stops][better] = new_seconds[better]
        previous[stops][better] = index
    if separated[-1] == unreached:
        return None
    cuts = []
    index = int(previous[-1])
    while index:
        cuts.append(int(positions[index]))
        index = int(previous[index])
    return tuple(reversed(cuts))


def smallest_peak(costs: Costs, required: Collection[int] = (), step_bytes: int = 1) -> int:
    """Return the smallest budget, in whole steps, that some choice of cuts including all ``required`` fits."""
    cuts = tuple(sorted(required))
    unavoidable = int((costs.alone() - costs.in_place).max())
    steps = bisect_first(lambda steps: is_feasible(costs, cuts, steps * step_bytes), -(-unavoidable // step_bytes))
    return steps * step_bytes
