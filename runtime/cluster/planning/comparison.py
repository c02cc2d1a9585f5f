"""Plan for every number of boards, by our planner and by those that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hyps.runtime.cluster.planning.algorithm1 import task_assignment
from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import Fleet, Stages, Workload
from hyps.runtime.cluster.planning.reasons import quality, with_reasons
from hyps.runtime.cluster.planning.simple_pipeline import simple_pipeline

_OTHERS: Mapping[str, Callable[[Workload, Fleet, int], Stages]] = {
    "Algorithm 1": task_assignment,
    "simple pipeline": simple_pipeline,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """A planner's placement on up to ``count`` boards; without stages, it has a step that does not fit its board.

    ``remark`` says how good it is, or why there is none.
    """

    count: int
    planner: str
    stages: Stages
    evaluation: Evaluation | None
    remark: str


def plan_rows(
    workload: Workload, fleet: Fleet, most_boards: int, objective: Objective, *, compare: bool = False
) -> Iterator[PlanRow]:
    """Yield the placements on 1, 2, ... boards; with ``compare``, also other planners'.

    Raises `BudgetError` if a step fits no board.
    """
    planner = PlacementPlanner(workload, fleet, most_boards)
    for count in range(1, most_boards + 1):
        planned = planner.plan(objective, count)
        figures = planned.evaluation
        yield PlanRow(
            count=count,
            planner="hyps",
            stages=with_reasons(planned.stages, figures),
            evaluation=figures,
            remark=quality(planned, KEYS[objective](figures)[0]),
        )
        for name, place in _OTHERS.items() if compare else ():
            yield _row(planner, count, name, place(workload, fleet, count))


def _row(planner: PlacementPlanner, count: int, name: str, stages: Stages) -> PlanRow:
    figures = planner.figures(stages)
    return PlanRow(
        count=count,
        planner=name,
        stages=with_reasons(stages, figures) if figures else (),
        evaluation=figures,
        remark="" if figures else "a step does not fit its board",
    )
