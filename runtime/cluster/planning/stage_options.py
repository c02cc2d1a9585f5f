"""Compute what every stage costs that a star of board groups allows: a run of steps, and how many boards of each group.

One board holds the run alone; several hold it as replicas or, if its components need nothing of each other, as shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hyps.runtime.cluster.planning.board_groups import BoardGroup
from hyps.runtime.cluster.planning.crossing import crossing
from hyps.runtime.cluster.planning.holding import hold
from hyps.runtime.cluster.planning.problem import Board
from hyps.runtime.cluster.planning.run_table import CostArray, RunTable
from hyps.runtime.cluster.planning.shares import ParallelRun, Shares, parallel_runs, ways_to_share, widest_runs
from hyps.runtime.cluster.planning.transfers import LEAST_S
from hyps.runtime.errors import BudgetError

#: The most pairs of a parallel run and a choice of boards for which shards are tried; beyond, only the widest runs are.
MOST_SHARDED = 6000
#: The most ways to share that are tried in all.
_MOST_WAYS = 60_000

#: How many boards of each group.
BoardCounts = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """The costs of a stage: seconds between inputs, seconds of one input, bytes that cross, and dynamic joules."""

    period_s: float
    latency_s: float
    nbytes: float
    dynamic_j: float

    def is_at_least_as_good(self, other: StageFigures) -> bool:
        """Return whether no figure is above another stage's."""
        return (
            self.period_s <= other.period_s
            and self.latency_s <= other.latency_s
            and self.nbytes <= other.nbytes
            and self.dynamic_j <= other.dynamic_j
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedStage:
    """A stage of shards side by side, on the boards of a choice, in the order of the groups."""

    choice: int
    start: int
    stop: int
    shares: Shares
    figures: StageFigures


class StageOptions:
    """All stages for a workload on up to ``limits`` boards of each group, ``most_boards`` of all.

    ``choices`` are the numbers of boards of each group. ``period_s``, ``latency_s`` and ``dynamic_j`` are indexed by
    (choice, start, stop), and hold for replicas, or for one board alone; ``nbytes`` by (start, stop). ``is_complete`` says
    whether every way to share a run as shards is there.
    """

    def __init__(
        self, table: RunTable, groups: Sequence[BoardGroup], limits: BoardCounts, most_boards: int, *, shards: bool = True
    ) -> None:
        self.table, self.groups = table, groups
        ranges = [range(limit + 1) for limit in limits]
        self.choices: list[BoardCounts] = [counts for counts in itertools.product(*ranges) if sum(counts) <= most_boards]
        self.nbytes: CostArray = table.crossing.inputs + table.crossing.outputs
        costs = [table.costs(group) for group in groups]
        shape = (len(self.choices), table.count, table.count + 1)
        self.period_s, self.latency_s, self.dynamic_j = (np.full(shape, np.inf) for _ in range(3))
        for place, counts in enumerate(self.choices):
            used = [(count, each) for count, each in zip(counts, costs, strict=True) if count]
            if not used or (sum(counts) > 1 and not self._all(counts, lambda board: board.shares_inputs)):
                continue
            rates = [count / each.period_s for count, each in used]
            fits = np.all([np.isfinite(each.period_s) for _, each in used], axis=0)
            rate = np.where(fits, np.sum(rates, axis=0), np.nan)
            with np.errstate(invalid="ignore"):
                dynamic = np.sum([part * each.dynamic_j for part, (_, each) in zip(rates, used, strict=True)], axis=0) / rate
                self.period_s[place] = np.where(fits, 1 / rate, np.inf)
                self.latency_s[place] = np.where(fits, np.max([each.latency_s for _, each in used], axis=0), np.inf)
                self.dynamic_j[place] = np.where(fits, dynamic, np.inf)
        self.is_complete = True
        self._shares: dict[tuple[tuple[int, ...], int], StageFigures | None] = {}
        self.sharded: list[ShardedStage] = [*self._sharded()] if shards else []

    def _sharded(self) -> Iterator[ShardedStage]:
        """Yield the stages of shards, without those of the same run and boards that are worse in all figures."""
        several = [
            place
            for place, counts in enumerate(self.choices)
            if sum(counts) > 1 and self._all(counts, lambda board: not board.one_run)
        ]
        runs = list(itertools.islice(parallel_runs(self.table.workload), MOST_SHARDED + 1)) if several else []
        if len(runs) * len(several) > MOST_SHARDED:
            self.is_complete = False
            runs = list(widest_runs(self.table.workload))
        pairs = [(run, place) for run in runs for place in several if sum(self.choices[place]) <= len(run.components)]
        for run, place in pairs:
            yield from self._stages(run, place, _MOST_WAYS // len(pairs))

    def _all(self, counts: BoardCounts, allows: Callable[[Board], bool]) -> bool:
        """Return whether all boards of a choice allow something."""
        return all(allows(group.sample) for group, count in zip(self.groups, counts, strict=True) if count)

    def _stages(self, run: ParallelRun, choice: int, most_ways: int) -> Iterator[ShardedStage]:
        numbers = [group for group, count in enumerate(self.choices[choice]) for _ in range(count)]
        speeds = [1 / self._seconds(number) for number in numbers]
        ways, is_complete = ways_to_share(self.table.workload, self.table.uses, run.components, numbers, speeds, most_ways)
        self.is_complete &= is_complete
        kept: list[ShardedStage] = []
        for shares in ways:
            figures = self._figures(shares, numbers)
            if figures is None or any(each.figures.is_at_least_as_good(figures) for each in kept):
                continue
            kept = [each for each in kept if not figures.is_at_least_as_good(each.figures)]
            kept.append(ShardedStage(choice=choice, start=run.start, stop=run.stop, shares=shares, figures=figures))
        yield from kept

    def _seconds(self, group: int) -> float:
        """Return the seconds that a group's boards compute all steps, for the proportion of their speeds."""
        name = self.groups[group].sample.board_class
        return max(sum(step.seconds.get(name, 0.0) for step in self.table.workload.steps), LEAST_S)

    def _figures(self, shares: Shares, numbers: Sequence[int]) -> StageFigures | None:
        """Return the costs of a stage, or None if a share does not fit its board."""
        found = [self._share(share, number) for share, number in zip(shares, numbers, strict=True)]
        parts = [each for each in found if each is not None]
        if len(parts) < len(found):
            return None
        return StageFigures(
            period_s=max(part.period_s for part in parts),
            latency_s=max(part.latency_s for part in parts),
            nbytes=sum(part.nbytes for part in parts),
            dynamic_j=sum(part.dynamic_j for part in parts),
        )

    def _share(self, share: tuple[int, ...], number: int) -> StageFigures | None:
        """Return the costs of one share on a board of a group, or None if it does not fit."""
        if (share, number) not in self._shares:
            group = self.groups[number]
            try:
                holding = hold(self.table.workload, self.table.uses, share, group.sample)
            except BudgetError:
                self._shares[share, number] = None
                return None
            crosses = crossing(self.table.workload, self.table.uses, share)
            received = sum(self.table.uses[name].nbytes for name in crosses.inputs)
            sent = sum(self.table.uses[name].nbytes for name in crosses.outputs)
            receiving, sending = received / group.down.bytes_per_s, sent / group.up.bytes_per_s
            latency = (group.down.latency_s if received else 0.0) + (group.up.latency_s if sent else 0.0)
            self._shares[share, number] = StageFigures(
                period_s=max(holding.service_s, receiving, sending, LEAST_S),
                latency_s=latency
                + max(receiving, holding.unpacking_s)
                + holding.compute_s
                + holding.streaming_s
                + max(sending, holding.packing_s),
                nbytes=received + sent,
                dynamic_j=(group.sample.busy_watts - group.sample.idle_watts) * holding.service_s,
            )
        return self._shares[share, number]
