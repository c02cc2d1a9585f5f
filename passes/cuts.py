"""Where to cut any DAG in a given execution order. A cut may carry several tensors.

Some cuts are wanted: around operators that were split (Kaboubi's Algorithm 1, section 3.2.5), behind poolings (Algorithm
2), behind every layer (the pre-qualification run of section 4.3.1). `best_cuts` makes those and adds what the budget needs:
a dynamic program over the order finds, among the plans whose every peak keeps within the budget, the one with the fewest
cuts between operators that onnxruntime fuses, then the fewest partitions, then the fewest bytes across the cuts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

import numpy as np

from hyps.passes.costs import Costs
from hyps.passes.graph import Graph

POOLINGS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"})


def best_cuts(costs: Costs, sealed: Collection[int], wanted: Collection[int], budget_bytes: int) -> tuple[int, ...] | None:
    """The best cut positions within the budget, ends left out; None when no choice of cuts keeps within it.

    ``wanted`` positions are cut in any case. ``sealed`` ones separate fused operators: each costs more than any number
    of partitions.
    """
    count = costs.count
    never = np.iinfo(np.int64).max
    partitions = np.full(count + 1, never, np.int64)
    crossed = np.full(count + 1, never, np.int64)
    came_from = np.zeros(count + 1, np.int64)
    partitions[0] = crossed[0] = 0
    barriers = [*sorted(wanted), count]
    for start in range(count):
        if partitions[start] == never:
            continue
        reach = int(np.searchsorted(costs.peaks_from(start), budget_bytes, side="right"))
        reach = min(reach, barriers[bisect_right(barriers, start)] - start)
        if not reach:
            continue
        stops = slice(start + 1, start + 1 + reach)
        new_partitions = partitions[start] + 1 + (count + 1 if start in sealed else 0)
        new_crossed = crossed[start] + (costs.crossing[start] if start else 0)
        better = (new_partitions < partitions[stops]) | (
            (new_partitions == partitions[stops]) & (new_crossed < crossed[stops])
        )
        partitions[stops][better], crossed[stops][better] = new_partitions, new_crossed
        came_from[stops][better] = start
    if partitions[count] == never:
        return None
    cuts = []
    position = int(came_from[count])
    while position:
        cuts.append(position)
        position = int(came_from[position])
    return tuple(reversed(cuts))


def smallest_peak(costs: Costs) -> int:
    """The least budget that some choice of cuts keeps within: the bottleneck of the best path over the positions."""
    best = np.full(costs.count + 1, np.iinfo(np.int64).max, np.int64)
    best[0] = 0
    for start in range(costs.count):
        worst = np.maximum(best[start], costs.peaks_from(start))
        best[start + 1 :] = np.minimum(best[start + 1 :], worst)
    return int(best[costs.count])


def mandatory_cuts(groups: Collection[tuple[int, int]], count: int) -> tuple[int, ...]:
    """Kaboubi's Algorithm 1: a cut before and behind every complex layer, given as (first, last) operator indices."""
    positions = {position for first, last in groups for position in (first, last + 1)}
    return tuple(sorted(positions - {0, count}))


def pooling_cuts(graph: Graph, sealed: Collection[int]) -> tuple[int, ...]:
    """Kaboubi's Algorithm 2: a cut behind every pooling operator, and behind what onnxruntime fuses to it."""
    count = len(graph.operators)
    behind = (index + 1 for index, operator in enumerate(graph.operators) if operator.op_type in POOLINGS)
    free = {next(p for p in range(position, count + 1) if p not in sealed) for position in behind}
    return tuple(sorted(free - {count}))


def layer_cuts(count: int, sealed: Collection[int]) -> tuple[int, ...]:
    """A cut behind every layer: an operator with what onnxruntime fuses to it."""
    return tuple(position for position in range(1, count) if position not in sealed)
