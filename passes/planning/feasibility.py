"""How far a partition can go within a budget, and whether any choice of cuts keeps within it.

A longer partition never needs less, so the stops that a start allows are all positions up to its reach, and the positions
that any plan comes by are all positions up to the furthest. A later start may need more, though: what a partition made
itself dies, or is overwritten, where it is read last; what crosses the cut before it stays until the step ends. So the
furthest reach is no plan by itself: earlier starts are tried where it ends.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from hyps.passes.cost.costs import Costs


def reach(costs: Costs, start: int, end: int, budget_bytes: int, guess: int = 1) -> int:
    """The most operators, up to ``end``, of a partition that starts at ``start`` and keeps within the budget; may be 0.

    Looks at as many operators as the partition has, or as ``guess`` says, and twice as many when all of those fit.
    """
    length = min(max(2 * guess, 32), end - start)
    while True:
        found = int(np.searchsorted(costs.peaks_from(start, start + length), budget_bytes, side="right"))
        if found < length or start + length == end:
            return found
        length = min(2 * length, end - start)


def fits(costs: Costs, wanted: tuple[int, ...], budget_bytes: int) -> bool:
    """Whether some choice of cuts that holds all ``wanted`` (ascending) keeps within the budget."""
    length = 1
    for first, last in itertools.pairwise((0, *wanted, costs.count)):
        untried, reached = [first], first
        while reached < last:
            if not untried:
                return False
            start = untried.pop()
            length = reach(costs, start, last, budget_bytes, length)
            untried.extend(range(reached + 1, start + length + 1))
            reached = max(reached, start + length)
    return True


def first_that(works: Callable[[int], bool], least: int) -> int:
    """The first number from ``least`` on that works, when every greater one does, too."""
    stride = 1
    fails = least - 1
    while not works(fails + stride):
        fails, stride = fails + stride, stride * 2
    candidates = range(fails + 1, fails + stride)
    return candidates.start + bisect_left(candidates, True, key=works)
