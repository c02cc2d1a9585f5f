"""Test boards that may not share inputs or steps, or have no time for some steps: no plan breaks that or could be better."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from hyps.runtime.cluster.planning.evaluation import evaluate
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages, Workload
from hyps.runtime.errors import BudgetError
from tests.runtime.cluster.planning.brute_force import evaluations
from tests.runtime.cluster.planning.test_evaluation import FLEET, WORKLOAD
from tests.runtime.cluster.planning.test_optimal import OBJECTIVES, ROUNDING, best_of, planned, small_case

REPLICAS: Stages = (PipelineStage(steps=range(3), boards=("b0", "b1"), sharing="replicas"),)
SHARDS: Stages = (
    PipelineStage(steps=range(1), boards=("b0",)),
    PipelineStage(steps=range(1, 3), boards=("b0", "b1"), sharing="shards", shares=((1,), (2,))),
)


def restricted(seed: int) -> tuple[Workload, Fleet, int]:
    """Return a small problem in which boards have fewer rights, and those of one class may not read the input."""
    workload, fleet, most = small_case(seed)
    random_ = random.Random(-seed)
    drawn = [(board, random_.random() < 0.3, random_.random() < 0.5) for board in fleet.boards]
    boards = tuple(replace(board, shares_inputs=shares and not one, one_run=one) for board, one, shares in drawn)
    steps = tuple(
        replace(step, seconds={name: each for name, each in step.seconds.items() if name != "c1"})
        if seed % 3 == 0 and "input" in step.inputs
        else step
        for step in workload.steps
    )
    return replace(workload, steps=steps), replace(fleet, boards=boards), most


def with_room(*, shares_inputs: bool = True, one_run: bool = False) -> Fleet:
    boards = (replace(each, memory_bytes=10**9, shares_inputs=shares_inputs, one_run=one_run) for each in FLEET.boards)
    return replace(FLEET, boards=tuple(boards))


def test_plans_with_fewer_rights_equal_brute_force() -> None:
    compared = 0
    for seed in range(200):
        workload, fleet, most = restricted(seed)
        found = list(evaluations(workload, fleet, most))
        for objective in OBJECTIVES:
            ours = planned(workload, fleet, objective, most)
            assert (ours is None) == (not found), seed
            if ours:
                assert KEYS[objective](ours.evaluation)[0] == pytest.approx(best_of(objective, found), rel=ROUNDING), seed
                compared += 1
    assert compared > 200


def test_branches_and_heuristics_keep_to_the_rights() -> None:
    """The evaluation refuses what is not allowed, and every planner's placement is evaluated."""
    planned_all = 0
    for seed in range(60):
        workload, fleet, most = restricted(seed)
        for objective, most_compared in itertools.product(OBJECTIVES, (0.0, 1e8)):
            try:
                planner = PlacementPlanner(workload, fleet, most, partitions=False, most_compared=most_compared)
                found = planner.plan(objective, most)
            except BudgetError:
                continue
            assert evaluate(workload, fleet, found.stages).period_s > 0
            planned_all += 1
    assert planned_all > 200


@pytest.mark.parametrize(
    ("stages", "fleet"),
    [(REPLICAS, with_room(shares_inputs=False)), (REPLICAS, with_room(one_run=True)), (SHARDS, with_room(one_run=True))],
    ids=["no inputs to share", "replicas of one run", "shards"],
)
def test_what_a_board_may_not_have_is_refused(stages: Stages, fleet: Fleet) -> None:
    evaluate(WORKLOAD, with_room(), stages)
    with pytest.raises(BudgetError, match=r"b0 (shares no inputs|has one run)"):
        evaluate(WORKLOAD, fleet, stages)


def test_copies_each_compute_every_input() -> None:
    copies = (PipelineStage(steps=range(3), boards=("b0", "b1"), sharing="copies"),)
    one = evaluate(WORKLOAD, with_room(), (PipelineStage(steps=range(3), boards=("b0",)),))
    both = evaluate(WORKLOAD, with_room(), copies)
    assert (both.period_s, both.latency_s, both.crossing_bytes) == (one.period_s, one.latency_s, 2 * one.crossing_bytes)


def test_a_replica_in_two_stages_works_for_both() -> None:
    """b0 computes a (1 s) for every input, and b and c (4 s) for every second one."""
    stages = (PipelineStage(steps=range(1), boards=("b0",)), replace(REPLICAS[0], steps=range(1, 3)))
    found = evaluate(WORKLOAD, with_room(), stages)
    assert found.period_s == pytest.approx(1 + 4 / 2)
    assert found.stages[1].period_s == pytest.approx(1 / (1 / 6 + 1 / 4))
