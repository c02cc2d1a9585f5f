"""Test the simulator against the formulas of `evaluate`, and that every input comes out once and in order."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hyps.runtime.cluster.planning.evaluation import evaluate
from hyps.runtime.cluster.planning.problem import HUB, Fleet, NetworkLink, PipelineStage, SharedLink, Stages, Workload
from hyps.runtime.cluster.simulation.engine import Simulation
from hyps.runtime.cluster.simulation.options import SimulationLimits, SpeedChange
from hyps.runtime.cluster.simulation.simulate import simulate
from hyps.runtime.cluster.simulation.stations import station_network
from hyps.runtime.errors import BudgetError, InputError
from tests.runtime.cluster.planning.problems import chain, fleet, step, workload

ONE_EACH = [PipelineStage(steps=range(number, number + 1), boards=(f"b{number}",)) for number in range(6)]


@st.composite
def pipelines(draw: st.DrawFn, *, equal: bool = False) -> tuple[Workload, Fleet, Stages]:
    """Draw a chain of steps in stages alone and replicated, weights that may be streamed, and links."""
    count = draw(st.integers(1, 4))
    work = chain(
        draw(st.lists(st.floats(0.01, 0.2), min_size=count, max_size=count)),
        draw(st.lists(st.integers(1, 1_000_000), min_size=count + 1, max_size=count + 1)),
        draw(st.lists(st.integers(0, 1_500_000), min_size=count, max_size=count)),
    )
    cuts = sorted(draw(st.sets(st.integers(1, count - 1)))) if count > 1 else []
    stages, boards = [], 0
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        copies = draw(st.integers(1, 3))
        names = tuple(f"b{number}" for number in range(boards, boards + copies))
        boards += copies
        stages.append(PipelineStage(steps=range(start, stop), boards=names, sharing="alone" if copies == 1 else "replicas"))
    slow = st.just(1) if equal else st.integers(1, 4)
    made = fleet(
        draw(st.lists(slow, min_size=boards, max_size=boards)),
        rate=draw(st.sampled_from([2e6, 1e7, 1e9])),
        memory_bytes=2_000_000,
    )
    message_s = draw(st.sampled_from([0.0, 0.0002, 0.002]))
    made = replace(made, boards=tuple(replace(board, message_s=message_s) for board in made.boards))
    if draw(st.booleans()):
        each = NetworkLink(bytes_per_s=5e6, latency_s=2e-3)
        pairs = {(a.name, b.name): each for a in made.boards for b in made.boards if a != b}
        made = replace(made, links={**made.links, **pairs})
    elif draw(st.booleans()):
        everyone = frozenset(board.name for board in made.boards)
        made = replace(
            made, shared_links=(SharedLink(name="hub", boards=everyone, bytes_per_s=8e6, duplex=draw(st.booleans())),)
        )
    return work, made, tuple(stages)


@given(pipelines())
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
def test_a_stream_takes_the_period_of_the_formula(case: tuple[Workload, Fleet, Stages]) -> None:
    expected = evaluate(*case)
    found = simulate(*case, seconds=3000 * expected.period_s, queue=4)
    assert found.throughput_per_s == pytest.approx(expected.throughput_per_s, rel=0.02)


@given(pipelines(equal=True))
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
def test_bytes_and_energy_of_a_stream_are_those_of_the_formula(case: tuple[Workload, Fleet, Stages]) -> None:
    expected = evaluate(*case)
    found = simulate(*case, seconds=3000 * expected.period_s, queue=4)
    assert found.static_joules == pytest.approx(expected.static_j, rel=0.02)
    assert found.dynamic_joules == pytest.approx(expected.dynamic_j, rel=0.03)
    assert sum(found.link_bytes.values()) == pytest.approx(expected.crossing_bytes, rel=0.03)
    assert sum(board.joules for board in found.boards.values()) == pytest.approx(
        found.joules - case[1].hub_watts * found.window_s / found.inferences
    )


@given(pipelines(equal=True))
@settings(max_examples=30, deadline=None, phases=[Phase.generate])
def test_one_input_takes_the_latency_of_the_formula(case: tuple[Workload, Fleet, Stages]) -> None:
    work, made, stages = case
    case = work, replace(made, shared_links=()), stages
    assert simulate(*case, inputs=1).latency_mean_s == pytest.approx(evaluate(*case).latency_s)


@given(pipelines(), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
@settings(max_examples=20, deadline=None, phases=[Phase.generate])
def test_all_inputs_come_out_once_and_in_order(
    case: tuple[Workload, Fleet, Stages], queue: int, seed: int, chunks: bool
) -> None:
    work, made, _ = case
    limits = SimulationLimits(
        seconds=None, inputs=200, queue=queue, rate=None, jitter=0.5, chunk_bytes=1000 if chunks else None
    )
    simulation = Simulation(work, made, station_network(*case), limits, random.Random(seed))
    simulation.plan(SpeedChange(at_s=0.5, board="b0", factor=0.1))
    left = [*simulation.outputs()]
    assert [number for number, _ in left] == [*range(200)]
    assert [at_s for _, at_s in left] == sorted(at_s for _, at_s in left)


def skipping(count: int) -> Workload:
    """Return a chain whose first tensor every step reads, too."""
    steps = tuple(
        step(f"s{number}", 0.1, tuple({"t0", "t1", f"t{number}"}) if number else ("t0",), (f"t{number + 1}",))
        for number in range(count)
    )
    return workload(steps, {f"t{number}": 1000 for number in range(count + 1)}, f"t{count}")


@pytest.mark.parametrize("queue", [1, 2, 10])
@pytest.mark.parametrize("copies", [1, 3])
def test_tensors_that_skip_stages_block_nothing(queue: int, copies: int) -> None:
    """Even where replicas of very different speeds overtake each other."""
    stages = [
        PipelineStage(
            steps=range(number, number + 1),
            boards=tuple(f"b{copies * number + each}" for each in range(copies)),
            sharing="replicas" if copies > 1 else "alone",
        )
        for number in range(12)
    ]
    made = fleet([1, 4, 2, 3] * 9)
    found = simulate(skipping(12), made, stages, inputs=300, queue=queue, jitter=0.9, seed=3)
    assert 200 < found.inferences <= 240


def test_the_next_stage_waits_for_the_slowest_shard() -> None:
    shards = (step("a", 0.1, ("t0",), ("a",)), step("b", 0.4, ("t0",), ("b",)), step("join", 0.05, ("a", "b"), ("t1",)))
    work = workload(shards, {"t0": 1000, "a": 500, "b": 500, "t1": 10}, "t1")
    stages = (
        PipelineStage(steps=range(2), boards=("b0", "b1"), sharing="shards", shares=((0,), (1,))),
        PipelineStage(steps=range(2, 3), boards=("b2",)),
    )
    made = fleet([1, 1, 1], rate=1e9, latency_s=0.0)
    found = simulate(work, made, stages, seconds=200)
    assert found.throughput_per_s == pytest.approx(2.5, rel=0.01)
    assert found.boards["b1"].busy_fraction == pytest.approx(1, abs=0.01)
    assert found.boards["b0"].busy_fraction == pytest.approx(0.25, abs=0.01)
    assert simulate(work, made, stages, inputs=1).latency_mean_s == pytest.approx(0.45, abs=1e-4)


def test_the_queue_before_the_slowest_board_is_full_and_those_behind_it_are_empty() -> None:
    """As in the thesis's figure 4.29a."""
    found = simulate(chain([0.1, 0.3, 0.1], [1, 1, 1, 1]), fleet([1, 1, 1], rate=1e9), ONE_EACH[:3], seconds=300)
    assert found.boards["b1"].occupancy[10] > 0.95
    assert found.boards["b2"].occupancy[0] > 0.95
    assert all(sum(board.occupancy) == pytest.approx(1) for board in found.boards.values())


def test_inputs_that_come_slowly_do_not_wait() -> None:
    case = chain([0.1, 0.3], [1000, 1000, 1000]), fleet([1, 1]), ONE_EACH[:2]
    alone = simulate(*case, inputs=1)
    slow = simulate(*case, seconds=500, arrivals=1.0)
    assert slow.throughput_per_s == pytest.approx(1.0, rel=0.01)
    assert slow.latency_s[1.0] == pytest.approx(alone.latency_mean_s, rel=0.001)
    assert slow.boards["b1"].busy_fraction == pytest.approx(0.3, rel=0.02)


def test_replicas_get_inputs_by_their_speed() -> None:
    """Boards of speeds 1, 2 and 4: the sum of what each does alone."""
    stage = PipelineStage(steps=range(1), boards=("b0", "b1", "b2"), sharing="replicas")
    found = simulate(chain([0.1], [10, 10]), fleet([4, 2, 1]), [stage], seconds=400)
    assert found.throughput_per_s == pytest.approx(10 + 5 + 2.5, rel=0.02)
    assert found.boards["b2"].served == pytest.approx(4 * found.boards["b0"].served, rel=0.05)


def test_a_board_that_slows_down_slows_the_stream_from_then_on() -> None:
    case = chain([0.1, 0.1], [10, 10, 10]), fleet([1, 1]), ONE_EACH[:2]
    change = SpeedChange(at_s=100, board="b1", factor=1 / 3)
    after = simulate(*case, seconds=1000, events=[change])
    assert after.throughput_per_s == pytest.approx(10 / 3, rel=0.01)


def test_jitter_is_drawn_by_the_seed() -> None:
    case = chain([0.1, 0.1], [10, 10, 10]), fleet([1, 1]), ONE_EACH[:2]
    first, again, other = (simulate(*case, seconds=50, jitter=0.2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.throughput_per_s == pytest.approx(10, rel=0.05)


def test_chunks_go_on_from_the_hub_before_the_rest_has_come() -> None:
    case = chain([0.0, 0.0], [0, 10_000_000, 0]), fleet([1, 1], rate=1e7, latency_s=0.0), ONE_EACH[:2]
    assert simulate(*case, inputs=1).latency_mean_s == pytest.approx(2.0)
    assert simulate(*case, inputs=1, chunk_bytes=100_000).latency_mean_s == pytest.approx(1.01)


def test_a_slow_sender_does_not_take_a_fast_receivers_link_for_itself() -> None:
    """Four boards at a tenth of the receiver's rate, all at once: its link carries all of them."""
    shards = tuple(step(f"p{number}", 0.0, ("t0",), (f"p{number}",)) for number in range(4))
    join = step("join", 0.0, tuple(f"p{number}" for number in range(4)), ("t1",))
    work = workload((*shards, join), {"t0": 0, "t1": 0} | {f"p{number}": 1_000_000 for number in range(4)}, "t1")
    boards = tuple(f"b{number}" for number in range(4))
    stages = (
        PipelineStage(steps=range(4), boards=boards, sharing="shards", shares=((0,), (1,), (2,), (3,))),
        PipelineStage(steps=range(4, 5), boards=("b4",)),
    )
    made = fleet([1] * 5, rate=1e6, latency_s=0.0)
    made = replace(made, links={**made.links, (HUB, "b4"): NetworkLink(bytes_per_s=1e7, latency_s=0.0)})
    assert simulate(work, made, stages, seconds=200, chunk_bytes=1).throughput_per_s == pytest.approx(1, rel=0.02)


def bad_stages(*stages: PipelineStage) -> Sequence[PipelineStage]:
    return stages


@pytest.mark.parametrize(
    ("stages", "error"),
    [
        (bad_stages(ONE_EACH[0]), ValueError),
        (bad_stages(ONE_EACH[0], PipelineStage(steps=range(1, 2), boards=("b0", "b1"), sharing="replicas")), ValueError),
    ],
    ids=["a step is missing", "a replica is in two stages"],
)
def test_what_is_no_placement_is_refused(stages: Sequence[PipelineStage], error: type[Exception]) -> None:
    with pytest.raises(error):
        simulate(chain([0.1, 0.1], [1, 1, 1]), fleet([1, 1]), stages, inputs=1)


def test_a_missing_link_and_a_step_that_does_not_fit_are_refused() -> None:
    work, made = chain([0.1], [1, 1], [2_000]), fleet([1])
    with pytest.raises(InputError, match="no link from b0 to hub"):
        simulate(work, replace(made, links={(HUB, "b0"): made.links[HUB, "b0"]}), ONE_EACH[:1], inputs=1)
    with pytest.raises(BudgetError, match="step s0 needs"):
        simulate(work, fleet([1], memory_bytes=1000), ONE_EACH[:1], inputs=1)
    with pytest.raises(ValueError, match="say seconds or inputs"):
        simulate(work, made, ONE_EACH[:1])


def test_memory_does_not_grow_with_the_number_of_inputs() -> None:
    """Replicas of unequal speed overtake each other all the time, and services jitter."""
    stages = [
        PipelineStage(steps=range(1), boards=("b0", "b1", "b2"), sharing="replicas"),
        PipelineStage(steps=range(1, 2), boards=("b3",)),
    ]
    case = chain([0.1, 0.05], [10, 10, 10]), fleet([1, 2, 4, 1]), stages
    peaks = []
    for inputs in (500, 5000):
        tracemalloc.start()
        simulate(*case, inputs=inputs, jitter=0.2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
