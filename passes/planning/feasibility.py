"""Find how long a partition can be within a budget, and whether any choice of cuts keeps within it.

A longer partition never needs less memory. So from each start a partition may stop anywhere up to a furthest
position. Likewise, plans within the budget reach every position up to a furthest one.

A later start may need more memory, though. A tensor that the partition itself makes is freed, or overwritten, at its last
read; a tensor that crosses the cut before the partition stays until the step ends. So taking the longest partition each
time may get stuck where another choice does not. The search then tries earlier starts.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from hyps.passes.cost.costs import Costs

#: The least number of operators that are looked at together.
SHORT = 32


def longest_partition(costs: Costs, start: int, end: int, budget_bytes: int, guess: int = 1) -> int:
    """Return the most operators, up to ``end``, of a partition from ``start`` that keeps within the budget; may be 0.

    Looks at twice ``guess`` operators first, and doubles their number while all of them fit.
    """
    length = min(max(2 * guess, SHORT), end - start)
    while True:
        fitting = int(np.searchsorted(costs.peaks_from(start, start + length), budget_bytes, side="right"))
        if fitting < length or start + length == end:
            return fitting
        length = min(2 * length, end - start)


def is_feasible(costs: Costs, required: tuple[int, ...], budget_bytes: int) -> bool:
    """Return whether some choice of cuts that includes all ``required`` (ascending) keeps within the budget."""
    length = 1
    for first, last in itertools.pairwise((0, *required, costs.count)):
        if last - first <= SHORT and costs.peak(first, last) <= budget_bytes:
            continue
        untried, furthest = [first], first
        while furthest < last:
            if not untried:
                return False
            start = untried.pop()
            length = longest_partition(costs, start, last, budget_bytes, length)
            untried.extend(range(furthest + 1, start + length + 1))
            furthest = max(furthest, start + length)
    return True


def fewest_partitions(costs: Costs, required: tuple[int, ...], budget_bytes: int) -> int:
    """Return how many partitions there are if each is as long as the budget allows: seldom more than the fewest possible."""
    count, length = 0, 1
    for first, last in itertools.pairwise((0, *required, costs.count)):
        start = first
        if last - first <= SHORT and costs.peak(first, last) <= budget_bytes:
            start, count = last, count + 1
        while start < last:
            length = max(1, longest_partition(costs, start, last, budget_bytes, length))
            start, count = start + length, count + 1
    return count


def bisect_first(predicate: Callable[[int], bool], lowest: int) -> int:
    """Return the first integer from ``lowest`` on for which ``predicate`` holds; it must hold for all greater ones, too.

    Doubles the stride until it holds, then bisects: the answer is usually near ``lowest``.
    """
    stride = 1
    failing = lowest - 1
    while not predicate(failing + stride):
        failing, stride = failing + stride, stride * 2
    candidates = range(failing + 1, failing + stride)
    return candidates.start + bisect_left(candidates, True, key=predicate)
