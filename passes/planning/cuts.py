"""Where to cut any DAG in a given execution order. A cut may carry several tensors.

Some cuts are wanted: around operators that were split (Kaboubi's Algorithm 1, section 3.2.5), behind poolings (Algorithm
2), behind every layer (the pre-qualification run of section 4.3.1): `hyps.passes.planning.required_cuts`. `best_cuts` makes those
and adds what the budget needs: a dynamic program over the order finds, among the plans whose every peak keeps within the
budget, the one with the fewest cuts between operators that onnxruntime fuses, then the least estimated latency
(`hyps.passes.cost.latency`).

It is exact up to `EXACT_OPERATORS`. Of longer graphs it first weighs that many positions: from each block of operators the
one where the least crosses. Where that finds no plan, or only one that parts fused operators, it weighs all positions. So a
plan is found whenever there is one, and fused operators are parted only where every plan does.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection

import numpy as np

from hyps.passes.cost.costs import Costs
from hyps.passes.cost.latency import Latency, Positions
from hyps.passes.planning.feasibility import first_that, fits, reach

#: Every position is weighed in graphs of up to so many operators; as many positions in longer ones.
EXACT_OPERATORS = 2000


def best_cuts(
    costs: Costs, latency: Latency, sealed: Collection[int], wanted: Collection[int], budget_bytes: int
) -> tuple[int, ...] | None:
    """The best cut positions within the budget, ends left out; None when no choice of cuts keeps within it.

    ``wanted`` positions are cut in any case. ``sealed`` ones separate fused operators: any number of other cuts is better.
    """
    asked = tuple(sorted(wanted))
    ends = itertools.pairwise((0, *asked, costs.count))
    if all(int(costs.peaks_from(start, stop)[-1]) <= budget_bytes for start, stop in ends):
        return asked  # joined partitions never take longer
    if not fits(costs, asked, budget_bytes):
        return None
    everywhere = range(costs.count + 1)
    if costs.count > EXACT_OPERATORS:
        cuts = _search(costs, latency, sealed, asked, budget_bytes, _promising(costs, sealed, asked))
        if cuts is not None and not set(cuts) - set(asked) & set(sealed):
            return cuts
    return _search(costs, latency, sealed, asked, budget_bytes, np.array(everywhere, np.int64))


def _promising(costs: Costs, sealed: Collection[int], wanted: tuple[int, ...]) -> Positions:
    """Of every block of operators the unsealed position where the least crosses; both ends, and all ``wanted``."""
    crossing = costs.crossing.astype(np.float64)
    crossing[list(sealed)] = np.inf
    starts = np.linspace(0, costs.count, EXACT_OPERATORS + 1).astype(np.int64)
    best = {int(first + crossing[first:stop].argmin()) for first, stop in itertools.pairwise(starts)}
    return np.array(sorted({0, costs.count, *wanted, *best} - ({*sealed} - {*wanted})), np.int64)


def _search(
    costs: Costs, latency: Latency, sealed: Collection[int], wanted: tuple[int, ...], budget_bytes: int, positions: Positions
) -> tuple[int, ...] | None:
    """The best plan that cuts at ``positions`` only, which are ascending and hold both ends and all ``wanted``."""
    never = np.iinfo(np.int64).max
    parted = np.full(len(positions), never, np.int64)  # cuts between fused operators, up to each position
    seconds = np.full(len(positions), np.inf)
    came_from = np.zeros(len(positions), np.int64)
    parted[0] = seconds[0] = 0
    barriers = [*wanted, costs.count]
    length = 1
    for index, start in enumerate(positions[:-1].tolist()):
        if parted[index] == never:
            continue
        length = reach(costs, start, barriers[bisect_right(barriers, start)], budget_bytes, length)
        stops = slice(index + 1, int(np.searchsorted(positions, start + length, side="right")))
        if stops.start >= stops.stop:
            continue
        weights = costs.weights_from(start, start + length)[positions[stops] - start - 1]
        new_seconds = seconds[index] + latency.partitions_s(start, positions[stops], weights)
        new_parted = parted[index] + (start in sealed)
        better = (new_parted < parted[stops]) | ((new_parted == parted[stops]) & (new_seconds < seconds[stops]))
        parted[stops][better] = new_parted
        seconds[stops][better] = new_seconds[better]
        came_from[stops][better] = index
    if parted[-1] == never:
        return None
    cuts = []
    index = int(came_from[-1])
    while index:
        cuts.append(int(positions[index]))
        index = int(came_from[index])
    return tuple(reversed(cuts))


def smallest_peak(costs: Costs, wanted: Collection[int] = (), step_bytes: int = 1) -> int:
    """The least budget, in whole steps, that some choice of cuts keeps within; ``wanted`` positions are cut in any case."""
    asked = tuple(sorted(wanted))

    def works(steps: int) -> bool:
        return fits(costs, asked, steps * step_bytes)

    unavoidable = int((costs.alone() - costs.in_place).max())
    return first_that(works, -(-unavoidable // step_bytes)) * step_bytes
