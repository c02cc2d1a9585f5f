"""Test the cost formula on cases that are computed by hand, and that whole arrays of costs agree with it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from hyps.runtime.cluster.planning.board_groups import board_groups
from hyps.runtime.cluster.planning.crossing import crossing, run_bytes, tensor_uses
from hyps.runtime.cluster.planning.evaluation import evaluate
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.planning.problem import (
    HUB,
    Board,
    Fleet,
    NetworkLink,
    PipelineStage,
    PlacedStep,
    SharedLink,
    Stages,
    Workload,
)
from hyps.runtime.cluster.planning.run_table import RunTable
from hyps.runtime.errors import BudgetError
from tests.runtime.cluster.planning.brute_force import every_placement, used
from tests.runtime.cluster.planning.drawn import drawn_fleet, drawn_workload

#: x (10 MB) -> a (1 s, 50 MB of weights) -> y (2 MB) -> b and c, side by side (2 s each) -> z1, z2 (1 MB each)
WORKLOAD = Workload(
    steps=(
        PlacedStep(
            name="a", seconds={"c": 1.0}, weight_bytes=50_000_000, working_bytes=5_000_000, inputs=("x",), outputs=("y",)
        ),
        PlacedStep(
            name="b", seconds={"c": 2.0}, weight_bytes=10_000_000, working_bytes=5_000_000, inputs=("y",), outputs=("z1",)
        ),
        PlacedStep(
            name="c", seconds={"c": 2.0}, weight_bytes=10_000_000, working_bytes=5_000_000, inputs=("y",), outputs=("z2",)
        ),
    ),
    tensor_bytes={"x": 10_000_000, "y": 2_000_000, "z1": 1_000_000, "z2": 1_000_000},
    inputs=("x",),
    outputs=("z1", "z2"),
)
BOARDS = tuple(
    Board(name=name, board_class="c", memory_bytes=60_000_000, storage_bytes_per_s=4e6, idle_watts=1.0, busy_watts=3.0)
    for name in ("b0", "b1", "b2")
)
LINKS = {
    pair: NetworkLink(bytes_per_s=10e6, latency_s=0.01)
    for board in BOARDS
    for pair in ((board.name, HUB), (HUB, board.name))
}
FLEET = Fleet(boards=BOARDS, links=LINKS, hub_watts=2.0)
WHOLE: Stages = (PipelineStage(steps=range(3), boards=("b0",)),)
SPLIT: Stages = (
    PipelineStage(steps=range(1), boards=("b0",)),
    PipelineStage(steps=range(1, 3), boards=("b1", "b2"), sharing="shards", shares=((1,), (2,))),
)


def test_messages_take_time_from_the_board_that_handles_them() -> None:
    """Unpacking y takes longer than the link does, packing z1 less: of an input alone the longer of each two counts."""
    y, z1 = tensor_messages(2_000_000), tensor_messages(1_000_000)
    assert (y, z1) == pytest.approx((8 + 16 + 2e6 / 18e3, 8 + 16 + 1e6 / 18e3))
    boards = tuple(replace(board, message_s=0.2 / 100) for board in BOARDS)
    fleet = replace(FLEET, boards=boards, links={**LINKS, ("b1", HUB): NetworkLink(bytes_per_s=1e6, latency_s=0.01)})
    found = {cost.board: cost for cost in evaluate(WORKLOAD, fleet, SPLIT).boards}
    assert found["b1"].holding.unpacking_s == pytest.approx(0.002 * y)
    assert found["b1"].holding.packing_s == pytest.approx(0.002 * z1)
    assert found["b1"].holding.service_s == pytest.approx(2.0 + 0.002 * (y + z1))
    assert found["b1"].period_s == found["b1"].holding.service_s
    assert found["b1"].latency_s == pytest.approx(0.01 + 0.002 * y + 2.0 + 0.01 + 1.0)
    assert found["b1"].dynamic_j == pytest.approx(2.0 * found["b1"].holding.service_s)
    quick = replace(WORKLOAD, steps=tuple(replace(step, seconds={"c": 1e-3}) for step in WORKLOAD.steps))
    assert evaluate(quick, fleet, SPLIT).stages[1].bound_by == "sending"
    assert evaluate(quick, replace(fleet, links=LINKS), SPLIT).stages[1].bound_by == "handling messages"


def test_one_board_reads_the_weights_that_do_not_stay() -> None:
    """70 MB of weights in 60 MB: none stay, as a needs 55 MB to run, and b or c 15 MB next to a's 50."""
    found = evaluate(WORKLOAD, FLEET, WHOLE)
    (board,) = found.boards
    assert (board.holding.memory_bytes, board.holding.resident_bytes) == (55_000_000, 0)
    assert found.period_s == pytest.approx(70 / 4 + 5.0)
    assert found.stages[0].bound_by == "reading weights"
    assert found.latency_s == pytest.approx(0.01 + 1.0 + found.period_s + 0.01 + 0.2)
    assert found.link_bytes == {(HUB, "b0"): 10_000_000, ("b0", HUB): 2_000_000}
    assert found.static_j == pytest.approx((2.0 + 3.0) * found.period_s)
    assert found.dynamic_j == pytest.approx(2.0 * found.period_s)


def test_shards_receive_the_inputs_each_and_the_slowest_counts() -> None:
    found = evaluate(WORKLOAD, FLEET, SPLIT)
    assert found.period_s == pytest.approx(2.0)
    assert found.slowest == 1
    first, second = 0.01 + 1.0 + 1.0 + 0.01 + 0.2, 0.01 + 0.2 + 2.0 + 0.01 + 0.1
    assert found.latency_s == pytest.approx(first + second)
    assert found.link_bytes[HUB, "b1"] == found.link_bytes[HUB, "b2"] == found.link_bytes["b0", HUB] == 2_000_000
    assert [board.holding.resident_bytes for board in found.boards] == [50_000_000, 10_000_000, 10_000_000]


def test_a_pair_with_a_link_does_without_the_hub() -> None:
    """b1 gets y directly, b2 through the hub."""
    direct = {("b0", "b1"): NetworkLink(bytes_per_s=20e6, latency_s=0.001)}
    found = evaluate(WORKLOAD, replace(FLEET, links=LINKS | direct), SPLIT)
    assert found.link_bytes["b0", "b1"] == 2_000_000
    assert (HUB, "b1") not in found.link_bytes
    assert found.link_bytes["b0", HUB] == found.link_bytes[HUB, "b2"] == 2_000_000
    assert found.boards[0].sending_s == pytest.approx(0.1 + 0.2)
    assert found.boards[1].receiving_s == pytest.approx(0.1)


@pytest.mark.parametrize(("duplex", "seconds"), [(True, 14.0), (False, 18.0)])
def test_a_shared_link_carries_what_all_its_boards_send_and_receive(duplex: bool, seconds: float) -> None:
    """In: x 10 MB, y twice 2 MB; out: y 2 MB, z1 and z2 1 MB each; 1 MB/s."""
    shared = SharedLink(name="air", boards=frozenset({"b0", "b1", "b2"}), bytes_per_s=1e6, duplex=duplex)
    found = evaluate(WORKLOAD, replace(FLEET, shared_links=(shared,)), SPLIT)
    assert found.slowest == "air"
    assert found.period_s == pytest.approx(seconds)


def test_unequal_replicas_add_their_rates() -> None:
    slow = replace(BOARDS[1], storage_bytes_per_s=1e6)
    fleet = replace(FLEET, boards=(BOARDS[0], slow, BOARDS[2]))
    stages: Stages = (PipelineStage(steps=range(3), boards=("b0", "b1"), sharing="replicas"),)
    alone = [
        evaluate(WORKLOAD, fleet, (PipelineStage(steps=range(3), boards=(name,)),)).throughput_per_s for name in ("b0", "b1")
    ]
    found = evaluate(WORKLOAD, fleet, stages)
    assert found.throughput_per_s == pytest.approx(sum(alone))
    assert [board.part for board in found.boards] == pytest.approx([rate / sum(alone) for rate in alone])
    assert found.crossing_bytes == pytest.approx(12_000_000)


def test_a_step_that_does_not_fit_is_named_with_what_it_lacks() -> None:
    small = replace(FLEET, boards=(replace(BOARDS[0], memory_bytes=40_000_000),))
    with pytest.raises(BudgetError, match=r"step a needs 55\.0 MB, b0 has 40\.0 MB: 15\.0 MB more than there is"):
        evaluate(WORKLOAD, small, WHOLE)


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (PipelineStage(steps=range(2), boards=("b0",)),),
        (PipelineStage(steps=range(3), boards=("b9",)),),
        (PipelineStage(steps=range(3), boards=("b0", "b0"), sharing="shards", shares=((0,), (1, 2))),),
        (PipelineStage(steps=range(3), boards=("b0", "b1"), sharing="shards", shares=((0, 1), (2,))),),
        (PipelineStage(steps=range(3), boards=("b0", "b1")),),
    ],
    ids=[
        "none",
        "a step is missing",
        "an unknown board",
        "a board twice",
        "shares that need each other",
        "two alone",
    ],
)
def test_what_is_no_placement_is_refused(stages: Stages) -> None:
    with pytest.raises(ValueError, match=r"stage|steps|board|share"):
        evaluate(WORKLOAD, FLEET, stages)


def test_bytes_of_all_runs_are_those_of_each() -> None:
    for seed in range(30):
        workload = drawn_workload(random.Random(seed), 9, 1)
        uses = tensor_uses(workload)
        found = run_bytes(workload, uses)
        for start in range(9):
            for stop in range(start + 1, 10):
                crosses = crossing(workload, uses, range(start, stop))
                assert found.inputs[start, stop] == sum(uses[name].nbytes for name in crosses.inputs)
                assert found.outputs[start, stop] == sum(uses[name].nbytes for name in crosses.outputs)


def test_the_period_of_one_run_is_that_of_the_row() -> None:
    """Bit for bit, infinite past a step without a time; and the longest run that a period allows is found."""
    for seed in range(30):
        random_ = random.Random(seed)
        workload, fleet = drawn_workload(random_, 6, 2), drawn_fleet(random_, 3, 2)
        table = RunTable(workload)
        for group in board_groups(fleet):
            for start in range(6):
                row = table.period_row(group, start, np.inf)
                found = [table.period_s(group, start, stop) for stop in range(start + 1, 7)]
                assert found == [*row, *[np.inf] * (len(found) - len(row))]
                for most_s in (each * (1 + 1e-6) for each in found if np.isfinite(each)):  # more than rounding
                    within = [start + 1 + at for at, each in enumerate(found) if each <= most_s]
                    assert table.longest_within(group, start, most_s) == max(within, default=None)


def test_costs_of_all_runs_are_those_of_the_evaluation() -> None:
    """A run's period and energy in the array, or infinite where it does not fit."""
    compared = 0
    for seed in range(30):
        random_ = random.Random(seed)
        workload, fleet = drawn_workload(random_, 5, 2), drawn_fleet(random_, 3, 2)
        table, groups = RunTable(workload), board_groups(fleet)
        names = tuple(group.sample.name for group in groups)
        for stages in every_placement(0, 5, names, len(names)):
            if any(stage.sharing != "alone" for stage in stages):
                continue
            try:
                found = evaluate(workload, used(fleet, stages), stages)
            except BudgetError:
                continue
            for stage, cost in zip(stages, found.stages, strict=True):
                costs = table.costs(groups[names.index(stage.boards[0])])
                place = stage.steps.start, stage.steps.stop
                assert costs.period_s[place] == pytest.approx(cost.period_s, rel=1e-9)
                assert costs.latency_s[place] == pytest.approx(cost.latency_s, rel=1e-9)
                compared += 1
            assert np.isfinite(found.period_s)
    assert compared > 50
