"""Test branches of several steps side by side: two-stream networks, slow links, the simulator, and no partitioner."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterator

import pytest

from hyps.runtime.cluster.planning import planner as planner_module
from hyps.runtime.cluster.planning.branches import has_branches, parallel_blocks
from hyps.runtime.cluster.planning.comparison import plan_rows
from hyps.runtime.cluster.planning.evaluation import evaluate
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import HUB, PipelineStage, Stages, Workload, used_fleet
from hyps.runtime.cluster.planning.run_table import RunTable
from hyps.runtime.cluster.simulation.simulate import simulate
from hyps.runtime.errors import BudgetError
from tests.runtime.cluster.planning.drawn import drawn_fleet, drawn_workload
from tests.runtime.cluster.planning.problems import fleet, step, workload


def two_stream(length: int = 4, nbytes: int = 1000, *, is_interleaved: bool = False) -> Workload:
    """Return a stem, two branches of equal steps of 0.5 s, and a step that joins them."""
    steps = [step("stem", 0.01, ("t0",), ("t1",))]
    branches = [
        [step(f"{name}{at}", 0.5, ("t1" if at == 0 else f"{name}{at - 1}",), (f"{name}{at}",), 1000) for at in range(length)]
        for name in "ab"
    ]
    if is_interleaved:
        steps += [each for pair in zip(*branches, strict=True) for each in pair]
    else:
        steps += [*branches[0], *branches[1]]
    steps.append(step("join", 0.01, (f"a{length - 1}", f"b{length - 1}"), ("end",)))
    return workload(tuple(steps), {name: nbytes for each in steps for name in (*each.inputs, *each.outputs)}, "end")


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_two_boards_halve_the_latency_of_a_two_stream_network(is_interleaved: bool) -> None:
    network = two_stream(is_interleaved=is_interleaved)
    ours = PlacementPlanner(network, fleet([1, 1]), 2)
    one, two = ours.plan("latency", 1).evaluation, ours.plan("latency", 2)
    assert one.latency_s / two.evaluation.latency_s > 1.9
    assert [stage.sharing for stage in two.stages] == ["alone", "shards", "alone"]
    assert {len(share) for share in two.stages[1].shares} == {4}
    assert two.stages[0].boards == two.stages[2].boards
    fast = ours.plan("throughput", 2).evaluation
    assert fast.throughput_per_s / ours.plan("throughput", 1).evaluation.throughput_per_s > 1.9
    assert ours.plan("latency", 2) == two  # always the same


def test_slow_links_leave_it_on_one_board() -> None:
    ours = PlacementPlanner(two_stream(nbytes=1_000_000), fleet([1, 1], rate=1e5), 2).plan("latency", 2)
    assert [stage.boards for stage in ours.stages] in ([("b0",)], [("b1",)])


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_simulator_agrees(objective: Objective) -> None:
    network, boards = two_stream(), fleet([1, 2, 2])
    ours = PlacementPlanner(network, boards, 3).plan(objective, 3)
    stream = simulate(network, used_fleet(boards, ours.stages), ours.stages, inputs=400)
    assert stream.throughput_per_s == pytest.approx(ours.evaluation.throughput_per_s, rel=0.02)
    alone = simulate(network, boards, ours.stages, inputs=50, arrivals=0.01)
    assert alone.latency_mean_s == pytest.approx(ours.evaluation.latency_s, rel=0.02)


def test_a_board_of_several_stages_works_for_one_at_a_time() -> None:
    """b0 has the stem, a branch and the join: 2.02 s an input; both branches' weights stay or none, as one process."""
    network, boards = two_stream(), fleet([1, 1])
    shares = (tuple(range(1, 5)), tuple(range(5, 9)))
    stages = (
        PipelineStage(steps=range(1), boards=("b0",)),
        PipelineStage(steps=range(1, 9), boards=("b0", "b1"), sharing="shards", shares=shares),
        PipelineStage(steps=range(9, 10), boards=("b0",)),
    )
    found = evaluate(network, boards, stages)
    assert found.period_s == pytest.approx(2.02)
    assert {board.holding.memory_bytes for board in found.boards if board.board == "b0"} == {4000}
    assert found.link_bytes["b0", HUB] == 3000
    stream = simulate(network, boards, stages, inputs=300)
    assert 1 / stream.throughput_per_s == pytest.approx(2.02, rel=0.02)
    assert stream.boards["b0"].busy_fraction == pytest.approx(1.0, rel=0.02)
    assert stream.dynamic_joules == pytest.approx(found.dynamic_j, rel=0.02)


def test_branches_only_make_placements_better() -> None:
    """On drawn networks, stars and others; some are better, none is below its bound."""
    better = 0
    for seed in range(150):
        random_ = random.Random(seed)
        classes = random_.randint(1, 2)
        network = drawn_workload(random_, random_.randint(3, 9), classes)
        boards = drawn_fleet(random_, random_.randint(2, 4), classes, pairs=seed % 3 == 0)
        for objective in ("throughput", "latency"):
            try:
                plain = PlacementPlanner(network, boards, 4, branches=False).plan(objective, 4)
            except BudgetError:
                continue
            ours = PlacementPlanner(network, boards, 4).plan(objective, 4)
            one, two = KEYS[objective](plain.evaluation)[0], KEYS[objective](ours.evaluation)[0]
            assert two <= one, (seed, objective)
            assert ours.bound <= two
            better += two < 0.99 * one
    assert better > 5


def every_placement(start: int, count: int) -> Iterator[Stages]:
    """Yield the placements of the steps from ``start`` on two boards that may each be in several stages."""
    if start == count:
        yield ()
        return
    for stop in range(start + 1, count + 1):
        steps = range(start, stop)
        made = [PipelineStage(steps=steps, boards=(name,)) for name in ("b0", "b1")]
        for owners in itertools.product(range(2), repeat=len(steps)):
            shares = tuple(tuple(s for s, owner in zip(steps, owners, strict=True) if owner == each) for each in range(2))
            if all(shares):
                made.append(PipelineStage(steps=steps, boards=("b0", "b1"), sharing="shards", shares=shares))
        for stage, rest in itertools.product(made, list(every_placement(stop, count))):
            yield (stage, *rest)


def test_the_stated_gap_holds_against_brute_force() -> None:
    """Networks of a stem, two branches of unequal steps and a join, on unequal boards: ours is nearly always the best."""
    hits = 0
    for seed in range(24):
        random_ = random.Random(seed)
        seconds = [random_.uniform(0.05, 0.5) for _ in range(6)]
        needs = [("t0",), ("t1",), ("t2",), ("t1",), ("t4",), ("t3", "t5")]
        steps = tuple(step(f"s{at}", seconds[at], needs[at], (f"t{at + 1}",)) for at in range(6))
        network = workload(steps, {f"t{at}": random_.choice([1000, 100_000]) for at in range(7)}, "t6")
        boards = fleet([1, random_.choice([1, 1, 2])], rate=2e6)
        ours = PlacementPlanner(network, boards, 2).plan("latency", 2)
        least = math.inf
        for stages in every_placement(0, 6):
            with contextlib.suppress(ValueError):
                least = min(least, evaluate(network, boards, stages).latency_s)
        reached = ours.evaluation.latency_s
        assert least <= reached * (1 + 1e-9)
        assert reached <= 1.1 * least, seed
        if len({name for stage in ours.stages for name in stage.boards}) > 1:
            assert ours.bound <= least * (1 + 1e-9), seed
        hits += reached <= least * (1 + 1e-6)
    assert hits >= 20


def test_without_the_partitioner_branches_are_placed_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner_module, "is_installed", lambda: False)
    rows = list(plan_rows(two_stream(), fleet([1, 1]), 2, "latency"))
    assert "hyps[placement]" in rows[1].remark
    assert "hyps[placement]" not in rows[0].remark
    assert rows[0].evaluation and rows[1].evaluation
    assert rows[0].evaluation.latency_s / rows[1].evaluation.latency_s > 1.9


def test_blocks_are_the_runs_between_a_fork_and_a_join() -> None:
    table = RunTable(two_stream())
    (block,) = parallel_blocks(table, lambda nbytes: 0.0)
    assert (block.start, block.stop) == (1, 9)
    assert block.components == (tuple(range(1, 5)), tuple(range(5, 9)))
    assert has_branches([block])
