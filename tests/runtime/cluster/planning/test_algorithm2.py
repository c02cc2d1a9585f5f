"""Test Algorithm 2: equal latencies, splits of layers that are too large or too slow, estimates that follow."""

from __future__ import annotations

import pytest

from hyps.runtime.cluster.planning.algorithm2 import ROUNDS, Monitored, equal_latency_groups, monitored_assignment
from hyps.runtime.cluster.planning.evaluation import check_stages, evaluate
from hyps.runtime.cluster.planning.problem import Stages, Workload
from hyps.runtime.cluster.simulation.simulate import simulate
from tests.runtime.cluster.planning.problems import chain, fleet, step, workload


def split_layer(parts: int, seconds: float, weight_bytes: int = 0) -> Workload:
    """Return a step, a layer in so many parts, and a step."""
    names = tuple(f"p{number}" for number in range(parts))
    middle = tuple(step(name, seconds / parts, ("t1",), (name,), weight_bytes // parts) for name in names)
    steps = (step("first", 0.1, ("t0",), ("t1",)), *middle, step("last", 0.1, names, ("t2",)))
    return workload(steps, dict.fromkeys(("t0", "t1", "t2", *names), 100), "t2")


def test_groups_take_about_the_same_time() -> None:
    seconds = [0.1, 0.1, 0.2, 0.4, 0.3, 0.1]
    stages = equal_latency_groups(chain(seconds, [1] * 7), fleet([1, 1, 1]), 3, seconds)
    assert [stage.steps for stage in stages] == [range(3), range(3, 4), range(4, 6)]


def test_a_slow_layer_is_split_among_the_devices_that_are_left() -> None:
    work = split_layer(4, 1.2)
    stages = equal_latency_groups(work, fleet([1] * 6), 6, [each.seconds["x1"] for each in work.steps])
    assert [(stage.sharing, len(stage.boards)) for stage in stages] == [("alone", 1), ("shards", 4), ("alone", 1)]
    check_stages(work, fleet([1] * 6), stages)


def test_a_layer_that_does_not_fit_is_split_even_if_it_is_fast() -> None:
    work = split_layer(4, 0.01, weight_bytes=3_000)
    boards = fleet([1] * 5, memory_bytes=1_600)
    stages = equal_latency_groups(work, boards, 5, [each.seconds["x1"] for each in work.steps])
    assert [len(stage.boards) for stage in stages if stage.sharing == "shards"] == [2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_devices_for_all_splits_still_hold_every_step(count: int) -> None:
    work, boards = split_layer(4, 0.4, weight_bytes=3_000), fleet([1] * count, memory_bytes=1_000)
    check_stages(work, boards, equal_latency_groups(work, boards, count, [each.seconds["x1"] for each in work.steps]))


def test_what_is_measured_moves_layers_off_a_board_that_reads_weights_again() -> None:
    """By profiles of single layers the first three steps go together; in fact their weights do not stay in memory."""
    work = chain([0.1, 0.1, 0.1, 0.3], [10] * 5, [3_000_000, 3_000_000, 3_000_000, 0])
    boards = fleet([1, 1], memory_bytes=4_000_000)
    deployed: list[Stages] = []

    def deploy(stages: Stages) -> Monitored:
        deployed.append(stages)
        found = simulate(work, boards, stages, seconds=100 * evaluate(work, boards, stages).period_s)
        board_s = {name: each.busy_fraction * found.window_s / each.served for name, each in found.boards.items()}
        return Monitored(throughput_per_s=found.throughput_per_s, board_s=board_s)

    stages, rounds = monitored_assignment(work, boards, 2, deploy)
    assert [stage.steps for stage in deployed[0]] == [range(3), range(3, 4)]
    assert 1 < rounds <= ROUNDS
    rates = [evaluate(work, boards, each).throughput_per_s for each in deployed]
    assert evaluate(work, boards, stages).throughput_per_s == max(rates)
