"""Test the planners on drawn problems: equal to brute force on small ones, never worse than simpler planners on others."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from hyps.runtime.cluster.planning.algorithm1 import task_assignment
from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.planner import PlacementPlanner, PlannedPlacement
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, PlacedStep, Workload
from hyps.runtime.cluster.planning.simple_pipeline import simple_pipeline
from hyps.runtime.errors import BudgetError
from tests.runtime.cluster.planning.brute_force import evaluations
from tests.runtime.cluster.planning.drawn import drawn_fleet, drawn_workload

OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency", "energy")
#: Sums of the same numbers in another order.
ROUNDING = 1e-8


def small_case(seed: int, *, pairs: bool = False) -> tuple[Workload, Fleet, int]:
    """Return a problem with so few placements that all can be evaluated, and how many boards may be used."""
    random_ = random.Random(seed)
    classes = random_.randint(1, 3)
    workload = drawn_workload(random_, random_.randint(1, 5), classes)
    boards = random_.randint(1, 4 if seed % 5 == 0 else 3)
    return workload, drawn_fleet(random_, boards, classes, pairs=pairs), random_.randint(1, boards)


def planned(workload: Workload, fleet: Fleet, objective: Objective, most: int) -> PlannedPlacement | None:
    """Return our placement with each board in one stage, or None if a step fits no board."""
    try:
        return PlacementPlanner(workload, fleet, len(fleet.boards), branches=False).plan(objective, most)
    except BudgetError:
        return None


def best_of(objective: Objective, found: list[Evaluation]) -> float:
    """Return the least value of an objective."""
    return min(KEYS[objective](figures)[0] for figures in found)


def test_ours_equals_brute_force_on_stars() -> None:
    """For every objective; of the placements with the best throughput, ours has the least latency."""
    sharings: Counter[str] = Counter()
    for seed in range(400):
        workload, fleet, most = small_case(seed)
        found = list(evaluations(workload, fleet, most))
        for objective in OBJECTIVES:
            ours = planned(workload, fleet, objective, most)
            assert (ours is None) == (not found), seed
            if ours is None:
                continue
            least = best_of(objective, found)
            assert KEYS[objective](ours.evaluation)[0] == pytest.approx(least, rel=ROUNDING), (seed, objective)
            assert ours.is_exact, seed
            sharings.update(stage.sharing for stage in ours.stages)
            if objective == "throughput":
                latency = min(each.latency_s for each in found if each.period_s <= least * (1 + ROUNDING))
                assert ours.evaluation.latency_s == pytest.approx(latency, rel=ROUNDING), seed
    assert min(sharings["alone"], sharings["replicas"], sharings["shards"]) > 20  # the cases are of all kinds


def test_links_between_boards_and_shared_links_are_bounded_by_brute_force() -> None:
    """Ours is not better than the best of all placements, its bound is not above it, and it is found most of the time."""
    hits, total = 0, 0
    for seed in range(120):
        workload, fleet, most = small_case(seed, pairs=True)
        found = list(evaluations(workload, fleet, most))
        for objective in OBJECTIVES if found else ():
            ours = planned(workload, fleet, objective, most)
            assert ours
            least, reached = best_of(objective, found), KEYS[objective](ours.evaluation)[0]
            assert ours.bound <= least * (1 + ROUNDING), (seed, objective)
            assert reached >= least * (1 - ROUNDING), (seed, objective)
            assert reached <= least * (1 + ROUNDING) or not ours.is_exact, (seed, objective)
            hits, total = hits + (reached <= least * (1 + ROUNDING)), total + 1
    assert hits > 0.8 * total, (hits, total)


@pytest.mark.parametrize(
    "seeds", [range(250), pytest.param(range(250, 1000), marks=pytest.mark.regression)], ids=["quarter", "rest"]
)
def test_ours_is_never_worse_than_algorithm_1_or_a_simple_pipeline(seeds: range) -> None:
    """1,000 drawn clusters and networks; every fourth has links between boards."""
    compared, better = 0, 0
    for seed in seeds:
        random_ = random.Random(seed)
        classes = random_.randint(1, 4)
        workload = drawn_workload(random_, random_.randint(1, 12), classes)
        boards = random_.randint(1, 7)
        fleet = drawn_fleet(random_, boards, classes, pairs=seed % 4 == 0)
        try:
            planner = PlacementPlanner(workload, fleet, boards)
        except BudgetError:
            continue
        ours = planner.plan("throughput", boards).evaluation
        for place in (task_assignment, simple_pipeline):
            other = planner.figures(place(workload, fleet, boards))
            if other is not None:
                assert ours.period_s <= other.period_s * (1 + ROUNDING), (seed, place)
                compared, better = compared + 1, better + (ours.period_s < 0.99 * other.period_s)
    assert compared > len(seeds) / 2
    assert better > compared / 4


def test_latency_is_never_above_the_best_single_boards() -> None:
    """The issue's target: what crosses a link must pay."""
    for seed in range(60):
        workload, fleet, _ = small_case(seed)
        ours = planned(workload, fleet, "latency", len(fleet.boards))
        alone = [figures.latency_s for figures in evaluations(workload, fleet, 1)]
        if ours and alone:
            assert ours.evaluation.latency_s <= min(alone) * (1 + ROUNDING)


def test_more_boards_are_never_worse() -> None:
    for seed in range(40):
        workload, fleet, _ = small_case(seed)
        for objective in OBJECTIVES:
            found = [planned(workload, fleet, objective, most) for most in range(1, len(fleet.boards) + 1)]
            values = [KEYS[objective](each.evaluation)[0] for each in found if each]
            assert all(one >= other * (1 - ROUNDING) for one, other in itertools.pairwise(values)), seed


def test_two_replicas_of_the_slowest_run_double_its_rate() -> None:
    """Three equal boards, a run of two steps of which one takes twice as long."""
    workload = Workload(
        steps=(
            PlacedStep(
                name="a", seconds={"c": 1.0}, weight_bytes=60_000_000, working_bytes=1, inputs=("x",), outputs=("y",)
            ),
            PlacedStep(
                name="b", seconds={"c": 2.0}, weight_bytes=60_000_000, working_bytes=1, inputs=("y",), outputs=("z",)
            ),
        ),
        tensor_bytes={"x": 1, "y": 1, "z": 1},
        inputs=("x",),
        outputs=("z",),
    )
    boards = tuple(
        Board(name=name, board_class="c", memory_bytes=70_000_000, storage_bytes_per_s=1e6, idle_watts=1, busy_watts=2)
        for name in ("b0", "b1", "b2")
    )
    link = NetworkLink(bytes_per_s=1e9, latency_s=0.0)
    fleet = Fleet(boards=boards, links={pair: link for b in boards for pair in ((b.name, HUB), (HUB, b.name))})
    ours = PlacementPlanner(workload, fleet, 3).plan("throughput", 3)
    assert [stage.sharing for stage in ours.stages] == ["alone", "replicas"]
    assert ours.evaluation.throughput_per_s == pytest.approx(1.0, rel=1e-6)
    assert [round(board.part, 3) for board in ours.evaluation.boards] == [1.0, 0.5, 0.5]


def test_a_thousand_steps_on_a_thousand_boards() -> None:
    """It completes, with a placement near the bound; `make bench-placement` prints how long it takes."""
    from tests.bench.placement_scale import large_problem

    workload, fleet = large_problem(1000, 1000, classes=4)
    ours = PlacementPlanner(workload, fleet, 1000).plan("throughput", 1000)
    assert ours.evaluation.period_s <= 1.2 * ours.bound
