"""Place steps on many boards for a period: walk through the steps, and give each board as many as the period allows.

The least period is found by halving. With one group, no replicas and costs that grow with a run this is exact; else it is a
heuristic, which `hyps.runtime.cluster.planning.bounds` judges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hyps.runtime.cluster.planning.board_groups import BoardGroup
from hyps.runtime.cluster.planning.problem import PipelineStage, Sharing, Stages
from hyps.runtime.cluster.planning.run_table import ROUNDING, RunTable

#: How near to each other the least period that works and the largest that does not are in the end.
_PRECISION = 1 + 1e-3
#: The groups that are tried for a stage before it is shared by boards of several.
_TRIED_GROUPS = 4


class GreedyPlanner:
    """The heuristic for one workload; ``groups`` in the order in which their boards are taken."""

    def __init__(self, table: RunTable, groups: Sequence[BoardGroup]) -> None:
        self._table, self._groups = table, groups
        slowest = [max(step.seconds.values(), default=0.0) for step in table.workload.steps]
        self._work = np.concatenate([[0.0], np.cumsum(slowest)])

    def best(self, most_boards: int, bound_s: float) -> Stages | None:
        """Return the placement with the smallest period that is found, or None; none is below ``bound_s``."""
        low = max(bound_s, 1e-9)
        high, best = low * _PRECISION, None
        while best is None and high < 1e9:
            best = self.within(high, most_boards)
            low, high = (low, high) if best else (high, high * 2)
        while best and high > low * _PRECISION:
            middle = (low * high) ** 0.5
            found = self.within(middle, most_boards)
            best, low, high = (found, low, middle) if found else (best, middle, high)
        return best

    def within(self, period_s: float, most_boards: int) -> Stages | None:
        """Return a placement with this period, or None where the walk does not reach the end."""
        free = {group: iter(each.boards) for group, each in enumerate(self._groups)}
        left = {group: len(each.boards) for group, each in enumerate(self._groups)}
        stages: list[PipelineStage] = []
        start, boards_left = 0, most_boards
        while start < self._table.count:
            found = self._next(start, period_s, left, boards_left)
            if found is None:
                return None
            stop, taken = found
            names: list[str] = []
            for group, number in taken:
                names += [next(free[group]).name for _ in range(number)]
                left[group] -= number
                if not left[group]:
                    del left[group]
            sharing: Sharing = "alone" if len(names) == 1 else "replicas"
            stages.append(PipelineStage(steps=range(start, stop), boards=tuple(names), sharing=sharing))
            start, boards_left = stop, boards_left - len(names)
        return tuple(stages)

    def _next(
        self, start: int, period_s: float, left: Mapping[int, int], most: int
    ) -> tuple[int, list[tuple[int, int]]] | None:
        """Return where the next stage ends, and how many boards of which groups it takes: as much work a board as can be.

        ``left`` are the free boards of each group.
        """
        for group in itertools.islice(left, _TRIED_GROUPS):
            count = min(left[group], most if self._groups[group].sample.shares_inputs else 1)
            if count == 1:
                if stop := self._table.longest_within(self._groups[group], start, period_s):
                    return stop, [(group, 1)]
                continue
            row = self._table.period_row(self._groups[group], start, count * period_s)
            needed = np.maximum(np.ceil(row / period_s - ROUNDING), 1)
            usable = np.flatnonzero(needed <= count)
            if len(usable):
                gain = (self._work[start + 1 + usable] - self._work[start]) / needed[usable]
                place = usable[np.flatnonzero(gain >= gain.max() * (1 - ROUNDING))[-1]]
                return start + 1 + int(place), [(group, int(needed[place]))]
        return self._mixed(start, period_s, left, most)

    def _mixed(
        self, start: int, period_s: float, left: Mapping[int, int], most: int
    ) -> tuple[int, list[tuple[int, int]]] | None:
        """Return the next step on replicas of several groups: as many as its period needs."""
        rate, taken = 0.0, list[tuple[int, int]]()
        for group, count in left.items():
            if not self._groups[group].sample.shares_inputs:
                continue
            alone_s = self._table.period_s(self._groups[group], start, start + 1)
            if not math.isfinite(alone_s):
                continue
            needed = max(0.0, math.ceil((1 / period_s - rate) * alone_s - ROUNDING))
            number = int(min(count, most, needed))
            if number:
                taken.append((group, number))
                rate, most = rate + number / alone_s, most - number
            if rate * period_s >= 1 - ROUNDING:
                return start + 1, taken
            if not most:
                return None
        return None
