"""Plan placements on up to so many boards: exactly where that is tractable, else by heuristics with a bound.

Exact (`hyps.runtime.cluster.planning.optimal`): a star of few groups of boards and at most 150 steps, so that the dynamic
program's table is small. A fleet with shared links, or with links between boards, is relaxed to a star that is no slower:
the star's best placement is a lower bound, and the best of the fleet where it reaches that. Else the best of several
heuristics' placements, Algorithm 1's and the simple pipeline's among them, is improved by small changes, and the gap to the
bound is stated. "Exact" is among placements with each board in one stage. Those with a board in several are tried where
branches can run side by side (`hyps.runtime.cluster.planning.branches`), and taken where they are better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hyps.runtime.cluster.planning.algorithm1 import task_assignment
from hyps.runtime.cluster.planning.board_groups import BoardGroup, board_groups, is_star, relaxed_star
from hyps.runtime.cluster.planning.bounds import lower_bound
from hyps.runtime.cluster.planning.branch_partition import partitioned_stages
from hyps.runtime.cluster.planning.branches import branches_side_by_side, has_branches, parallel_blocks, tried_boards
from hyps.runtime.cluster.planning.evaluation import Evaluation, evaluate
from hyps.runtime.cluster.planning.greedy import GreedyPlanner
from hyps.runtime.cluster.planning.holding import check_fit
from hyps.runtime.cluster.planning.improvement import ObjectiveKey, improved
from hyps.runtime.cluster.planning.in_order import least_latency
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.optimal import ExactPlanner, Objective
from hyps.runtime.cluster.planning.partition_process import is_installed
from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages, Workload, used_fleet
from hyps.runtime.cluster.planning.run_table import MOST_EXACT_STEPS, RunTable
from hyps.runtime.cluster.planning.shares import ParallelRun
from hyps.runtime.cluster.planning.simple_pipeline import simple_pipeline
from hyps.runtime.cluster.planning.stage_options import StageOptions
from hyps.runtime.cluster.planning.transfers import KnownCosts
from hyps.runtime.errors import BudgetError

#: The most entries of the dynamic program's table.
_MOST_ENTRIES = 4e6
#: The number of evaluations of small changes, times steps and boards.
_TRIES = 20_000
#: The boards that the heuristic for latency looks at: few steps are worth sending on.
_LATENCY_BOARDS = 8
#: The most boards for which the star's best placements on fewer are tried, too: links may bound what more could gain.
_FEW_BOARDS = 16
#: Steps and boards together for which branches are looked for.
_MOST_FOR_BRANCHES = 800
#: A placement reaches a bound if it is no more than rounding above it.
_REACHED = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPlacement:
    """A placement, its figures, whether no other is better, and a number that no placement's objective is below.

    ``is_exact`` and ``bound`` are among placements with each board in one stage, unless this one has a board in several.
    ``lacks_partitioner``: the network has branches, and `mtkahypar`, which may place them better, is not installed.
    """

    stages: Stages
    evaluation: Evaluation
    is_exact: bool
    bound: float
    lacks_partitioner: bool = False


class PlacementPlanner:
    """The planner for one workload and fleet; most of the work for several numbers of boards is shared.

    ``branches``: also try placements with boards in several stages; ``partitions``: also those of `mtkahypar`, which take
    seconds. ``most_compared`` bounds the dynamic program. Raises `BudgetError` if a step fits no board.
    """

    def __init__(
        self,
        workload: Workload,
        fleet: Fleet,
        most_boards: int,
        *,
        branches: bool = True,
        partitions: bool = True,
        most_compared: float = 1.5e8,
    ) -> None:
        check_fit(workload, fleet)
        self._partitions = partitions and is_installed()
        self._most_compared = most_compared
        self.workload, self.fleet = workload, fleet
        self._tries_branches = branches and len(workload.steps) + len(fleet.boards) < _MOST_FOR_BRANCHES
        self._most_boards = min(most_boards, len(fleet.boards))
        self._table = RunTable(workload)
        self._known = KnownCosts(workload)
        self._groups = board_groups(fleet)
        self._star = fleet if is_star(fleet) else relaxed_star(fleet)
        self._class_seconds: dict[str, float] = {}

    def plan(self, objective: Objective, count: int) -> PlannedPlacement:
        """Return the best placement on at most ``count`` boards. Raises `BudgetError` if none is found."""
        count = min(count, self._most_boards)
        bound = lower_bound(self.workload, self.fleet, objective, count)
        stages = self._exact.best(objective, count) if self._exact else None
        if stages and self._is_complete:
            bound = max(bound, KEYS[objective](self._evaluated(self._star, stages))[0])
        figures = self.figures(stages) if stages else None
        if figures is None or KEYS[objective](figures)[0] > bound * _REACHED:
            stages = self._heuristic(objective, count, bound)
            figures = self.figures(stages) if stages else None
        if stages is None or figures is None:
            raise BudgetError(f"no placement on {count} boards is found: no board has a time for all steps that fit it")
        better = self._with_branches(objective, count, stages, figures)
        if better:
            stages, figures = better
            bound = lower_bound(self.workload, self.fleet, objective, count)
        reached = KEYS[objective](figures)[0]
        return PlannedPlacement(
            stages=stages,
            evaluation=figures,
            is_exact=reached <= bound * _REACHED,
            bound=min(bound, reached),
            lacks_partitioner=self._tries_branches and count > 1 and has_branches(self._blocks) and not is_installed(),
        )

    def _with_branches(
        self, objective: Objective, count: int, stages: Stages, figures: Evaluation
    ) -> tuple[Stages, Evaluation] | None:
        """Return a placement that has branches side by side and is better than another, or None if none is found."""
        if not self._tries_branches or count < 2 or not self._blocks:
            return None
        key = KEYS[objective]
        found: list[tuple[ObjectiveKey, Stages, Evaluation]] = []
        for start in (stages, *self._alone()):
            boards = tried_boards(self.workload, self.fleet, start)
            made = [branches_side_by_side(start, self.workload, boards, self._blocks, self.figures, key, count)]
            if start is stages and has_branches(self._blocks) and self._partitions:
                made += partitioned_stages(self.workload, self.fleet, self._table.uses, self._blocks, boards[:count])
            found += [(key(new), each, new) for each in made if (new := self.figures(each))]
        best = min(found, key=lambda each: each[0], default=None)
        if best is None or best[0][0] > key(figures)[0] or best[0] >= key(figures):
            return None
        return best[1], best[2]

    def _alone(self) -> Iterator[Stages]:
        """Yield the whole workload on one board of each of the fastest groups."""
        steps = range(len(self.workload.steps))
        for group in sorted(self._groups, key=self._seconds)[:_LATENCY_BOARDS]:
            stages = (PipelineStage(steps=steps, boards=(group.sample.name,)),)
            if self.figures(stages):
                yield stages

    @cached_property
    def _blocks(self) -> tuple[ParallelRun, ...]:
        """The blocks that pay on the fastest links."""
        links = self.fleet.links.values()
        latency, rate = min(each.latency_s for each in links), max(each.bytes_per_s for each in links)
        return parallel_blocks(self._table, lambda nbytes: 2 * latency + nbytes / rate)

    def figures(self, stages: Stages) -> Evaluation | None:
        """Return a placement's figures with the boards that it uses, or None if a step does not fit."""
        try:
            return self._evaluated(self.fleet, stages)
        except BudgetError:
            return None

    def _evaluated(self, fleet: Fleet, stages: Stages) -> Evaluation:
        return evaluate(self.workload, used_fleet(fleet, stages), stages, self._known)

    @cached_property
    def _exact(self) -> ExactPlanner | None:
        """The dynamic program, or None where its table would be too large."""
        groups = board_groups(self._star)
        limits = tuple(min(len(group.boards), self._most_boards) for group in groups)
        steps = len(self.workload.steps)
        entries = math.prod(limit + 1 for limit in limits) * steps**2
        compared = math.prod((limit + 1) * (limit + 2) // 2 for limit in limits) * steps**2
        if steps > MOST_EXACT_STEPS or entries > _MOST_ENTRIES or compared > self._most_compared:
            return None
        options = StageOptions(self._table, groups, limits, self._most_boards)
        self._is_complete = options.is_complete
        return ExactPlanner(options, self.fleet.hub_watts)

    def _heuristic(self, objective: Objective, count: int, bound: float) -> Stages | None:
        key = KEYS[objective]
        found = [
            (key(figures), stages) for stages in self._candidates(objective, count) if (figures := self.figures(stages))
        ]
        if not found:
            return None
        reached, best = min(found, key=lambda each: each[0])
        if reached[0] <= bound * (1 + 1e-6):
            return best
        tries = _TRIES // (len(self.workload.steps) + len(self.fleet.boards)) - 20
        return improved(best, self.fleet, self.figures, key, count, tries) if tries > 0 else best

    def _candidates(self, objective: Objective, count: int) -> Iterator[Stages]:
        """Yield placements that may be good: as if the fleet were a star, of one board, and those of simpler planners."""
        for each in range(1, count + 1) if self._exact and count <= _FEW_BOARDS else (count,):
            if self._exact and (stages := self._exact.best(objective, each)):
                yield stages
        counts = {count} if objective == "throughput" else {each for each in (1, 2, 4, 8, count) if each <= count}
        for groups in self._orders():
            for each in sorted(counts):
                bound_s = lower_bound(self.workload, self.fleet, "throughput", each)
                if stages := GreedyPlanner(self._table, groups).best(each, bound_s):
                    yield stages
            if objective != "throughput" and (
                stages := least_latency(self._table, groups[:_LATENCY_BOARDS], min(count, _LATENCY_BOARDS))
            ):
                yield stages
        if objective != "throughput":
            yield from self._alone()
        yield task_assignment(self.workload, self.fleet, count)
        yield simple_pipeline(self.workload, self.fleet, count)

    def _orders(self) -> list[tuple[BoardGroup, ...]]:
        """Return the orders in which groups are tried: all of a few groups, else the fastest and the largest first."""
        if len(self._groups) <= 3:
            return list(itertools.permutations(self._groups))
        by_speed = sorted(self._groups, key=self._seconds)
        by_memory = sorted(self._groups, key=lambda group: (-group.sample.memory_bytes, self._seconds(group)))
        return [tuple(by_speed), tuple(by_memory)]

    def _seconds(self, group: BoardGroup) -> float:
        name = group.sample.board_class
        if name not in self._class_seconds:
            self._class_seconds[name] = sum(step.seconds.get(name, math.inf) for step in self.workload.steps)
        return self._class_seconds[name]
