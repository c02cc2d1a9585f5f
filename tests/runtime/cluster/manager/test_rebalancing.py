"""Test decisions to move, without a clock: what is worth a move, and that jitter causes at most one in ten minutes."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.cluster.manager.monitor import Monitor, TimedAnswer, clipped_mean
from hyps.runtime.cluster.manager.rebalancing import MARGIN, MoveRecord, Outlook, decide
from hyps.runtime.cluster.manager.step_time_model import StepTimeModel
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed


def first_move(
    gain: float, *, cost_s: float = 1.0, busy: float = 1.0, occupied: float = 1.0, limit_s: int = 600
) -> int | None:
    """Return the second at which a constant gain leads to a move."""
    record = MoveRecord()
    for now in range(limit_s):
        outlook = Outlook(now=now, present=1.0, best=1.0 + gain, cost_s=cost_s, busy=busy, occupied=occupied)
        decision = decide(outlook, record)
        record = decision.record
        if decision.verdict == "move":
            return now
    return None


def test_a_large_gain_moves_soon_and_a_small_one_never() -> None:
    times = [first_move(gain) for gain in (1.3, 0.5, 0.25, 0.1)]
    assert times == [8, 20, 40, None]


def test_a_move_that_costs_more_than_it_gains_is_not_made() -> None:
    assert first_move(0.5, cost_s=200) is None
    assert first_move(0.5, cost_s=100) is not None


def test_nothing_moves_while_workers_wait_for_inputs() -> None:
    assert first_move(2.0, occupied=0.2) is None


def test_only_the_time_that_is_computed_gets_shorter() -> None:
    """A worker that computes less than half of the time, and else sends, gains little from less to compute."""
    assert first_move(2.0, busy=0.4) == 28
    assert first_move(0.5, busy=1 / 3) is None


def test_nothing_moves_where_measured_times_do_not_explain_the_throughput() -> None:
    """Such as where something else takes the time of the manager's board."""
    outlook = Outlook(now=0.0, present=40.0, best=130.0, cost_s=1.0, explained=12 / 40)
    assert decide(outlook, MoveRecord()).reason == "only 30% of the answers come that the measured times would give"


def test_a_gain_that_still_grows_is_waited_for() -> None:
    """Steps would move by speeds that are measured half before and half after they changed."""
    record = MoveRecord()
    for now in range(100):
        best = 1.2 if now < 30 else 1.5 if now < 33 else 2.6
        decision = decide(Outlook(now=now, present=1.0, best=best, cost_s=1.0), record)
        record = decision.record
        if decision.verdict == "move":
            break
    assert now == 40


def test_a_worker_that_is_fast_again_gets_its_work_back() -> None:
    """The margin after a move is for jitter; a speed that is three times another one is none."""
    moves = simulate(3, lambda worker, now: 1 / 3 if worker == 0 and 100 <= now < 200 else 1.0)
    assert len(moves) == 2
    assert 200 < moves[1] < 250


def test_a_worker_that_changes_all_the_time_moves_steps_rarely() -> None:
    moves = simulate(3, lambda worker, now: 1 / 3 if worker == 0 and now // 60 % 2 else 1.0)
    assert len(moves) <= 4


def test_a_gain_that_comes_and_goes_is_not_worth_a_move() -> None:
    record = MoveRecord()
    for now in range(600):
        best = 1.5 if now % 15 else 1.0
        decision = decide(Outlook(now=now, present=1.0, best=best, cost_s=1.0), record)
        record = decision.record
        assert decision.verdict != "move"


def test_each_move_makes_the_next_harder() -> None:
    record = MoveRecord(moves=(0.0,))
    small = decide(Outlook(now=100, present=1.0, best=1.4, cost_s=1.0), record)
    assert "less than the margin of 65%" in small.reason
    later = decide(Outlook(now=601, present=1.0, best=1.4, cost_s=1.0), record)
    assert (later.verdict, later.record.moves) == ("wait", ())
    assert decide(Outlook(now=10, present=1.0, best=9.0, cost_s=1.0), record).reason == "the last move was just now"


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0, 100)), max_size=200))
def test_a_move_always_gains_more_than_the_margin(figures: list[tuple[float, float, float]]) -> None:
    record = MoveRecord()
    for now, (present, best, cost_s) in enumerate(figures):
        outlook = Outlook(now=now, present=present, best=best, cost_s=cost_s)
        decision = decide(outlook, record)
        if decision.verdict == "move":
            assert outlook.gain >= MARGIN
            assert decision.record.moves[-1] == now
        record = decision.record


def simulate(workers: int, speed: Callable[[int, int], float], seconds: int = 600) -> list[int]:
    """Return when work moves between workers that each have a share of it, measured once a second with the speeds given.

    A share is what a pipeline gives a worker, for the sum of speeds at the last move; answers of ten seconds count.
    """
    shares = [1 / workers] * workers
    samples: list[deque[TimedAnswer]] = [deque(maxlen=10) for _ in range(workers)]
    record, moves, before = MoveRecord(), [], [math.inf] * workers
    for now in range(seconds):
        for each in range(workers):
            samples[each].append(TimedAnswer(at=now, seconds=1 / speed(each, now), steps_s=()))
        if now < 10:
            continue
        known = [1 / clipped_mean(each)[0] for each in samples]
        present = min(rate / share for rate, share in zip(known, shares, strict=True) if share)
        changed = max(max(new / old, old / new) for new, old in zip(known, before, strict=True))
        decision = decide(Outlook(now=now, present=present, best=sum(known), cost_s=5.0, changed=changed), record)
        record = decision.record
        if decision.verdict == "move":
            moves.append(now)
            before = known
            shares = [rate / sum(known) for rate in known]
    return moves


@pytest.mark.parametrize("period", [1, 3, 10, 30, 60, 120, 200])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_jitter_moves_steps_once_at_most(workers: int, period: int) -> None:
    """Speeds that go up and down by a fifth for ten minutes, quickly or slowly."""
    for seed in range(8):
        drawn: dict[tuple[int, int], float] = {}

        def speed(worker: int, now: int, seed: int = seed, drawn: dict[tuple[int, int], float] = drawn) -> float:
            place = worker, now // period
            return drawn.setdefault(place, random.Random(f"{seed} {place}").uniform(0.8, 1.2))

        assert len(simulate(workers, speed)) <= 1


@pytest.mark.parametrize("workers", [2, 3, 5, 8])
def test_a_board_at_a_third_loses_work_within_half_a_minute(workers: int) -> None:
    moves = simulate(workers, lambda worker, now: 1 / 3 if worker == 0 and now >= 100 else 1.0)
    assert len(moves) == 1
    assert 100 < moves[0] < 130


JOB = "0" * 32


def timed(monitor: Monitor, worker: str, steps: range, seconds: list[float], now: float, attempt: int) -> None:
    key = Key(job=JOB, sub_bundle=0, attempt=attempt)
    monitor.sent(key, worker, steps, 1 << 20, now - sum(seconds) - 0.01)
    monitor.timed(worker, Timed(key=key, compute_s=sum(seconds), steps_s=tuple(seconds)), now)
    monitor.done(key, now + 0.1)


def test_a_monitor_measures_steps_and_links() -> None:
    monitor = Monitor()
    for number in range(5):
        timed(monitor, "w0", range(3, 5), [0.1, 0.3], 10.0 + number, number)
    assert monitor.steps_s(15.0)["w0"] == pytest.approx({3: 0.1, 4: 0.3})
    assert monitor.steps_s(100.0)["w0"] == {}
    assert monitor.service_s("w0", range(3, 5), 15.0) == pytest.approx(0.4)
    assert monitor.link_s("w0") == pytest.approx(0.1)
    assert monitor.link_bytes_per_s() == pytest.approx((1 << 20) / 0.1)
    assert monitor.busy_share("w0", 15.0) == pytest.approx(0.2)
    monitor.forget("w0")
    assert (monitor.service_s("w0", range(3, 5), 15.0), monitor.link_s("w0"), monitor.queue("w0")) == (None, None, ())


def test_a_worker_cannot_claim_more_time_than_passed_or_anothers_input() -> None:
    monitor = Monitor()
    key = Key(job=JOB, sub_bundle=0, attempt=0)
    monitor.sent(key, "w0", range(1), 0, 10.0)
    monitor.timed("thief", Timed(key=key, compute_s=5.0, steps_s=(5.0,)), 11.0)
    assert monitor.service_s("thief", range(1), 11.0) is None
    monitor.timed("w0", Timed(key=key, compute_s=500.0, steps_s=(500.0,)), 11.0)
    monitor.timed("w0", Timed(key=key, compute_s=0.5), 11.0)
    assert monitor.service_s("w0", range(1), 11.0) == 1.0


def test_pauses_that_are_longer_than_a_step_take_time_from_it() -> None:
    """A processor's quota stops a worker for 16 ms of 20; the steps take 1 ms, so that few of them have a pause."""
    monitor = Monitor()
    for number in range(100):
        seconds = [0.001, 0.001]
        seconds[number // 4 % 2] += 0.016 if number % 4 == 0 else 0.0
        timed(monitor, "w0", range(2), seconds, 10.0 + number / 20, number)
    steps_s = monitor.steps_s(15.0)["w0"]
    assert steps_s == pytest.approx({0: 0.003, 1: 0.003}, rel=0.05)
    assert monitor.service_s("w0", range(2), 15.0) == pytest.approx(sum(steps_s.values()))


def test_one_stall_makes_no_slow_worker() -> None:
    monitor = Monitor()
    for number in range(10):
        timed(monitor, "w0", range(2), [0.1, 5.0 if number == 4 else 0.2], 10.0 + number, number)
    assert monitor.service_s("w0", range(2), 19.5) == pytest.approx(0.3)
    assert monitor.steps_s(19.5)["w0"] == pytest.approx({0: 0.09, 1: 0.21}, rel=0.05)


def test_old_answers_count_only_where_there_are_no_newer_ones() -> None:
    monitor = Monitor()
    for number in range(4):
        timed(monitor, "w0", range(1), [0.1], 10.0 + number, number)
    assert monitor.steps_s(70.0)["w0"] == pytest.approx({0: 0.1})
    for number in range(4):
        timed(monitor, "w0", range(1), [0.4], 70.0 + number, 4 + number)
    assert monitor.steps_s(73.5)["w0"] == pytest.approx({0: 0.4})
    for number in range(4):  # another run of steps that has this step, too
        timed(monitor, "w0", range(2), [0.2, 0.1], 74.0 + number, 8 + number)
    assert monitor.steps_s(78.0)["w0"] == pytest.approx({0: 0.2, 1: 0.1})


def worker(name: str, macs_per_s: int, board_class: str | None = None) -> WorkerCapacity:
    return WorkerCapacity(name=name, memory_bytes=10**8, macs_per_s=macs_per_s, board_class=board_class)


def seconds(model: StepTimeModel, workers: list[WorkerCapacity]) -> list[list[float]]:
    """Return the model's seconds of each step by worker, to be compared within the factor by which speeds are told apart."""
    found = model.seconds_on(workers)
    return [[*found(each)] for each in workers]


def near(expected: list[float]) -> object:
    return pytest.approx(expected, rel=0.026)


def test_times_of_workers_that_slow_down() -> None:
    """What a step takes a worker at its best stays what it was; the worker's speed is what changes."""
    model, workers = StepTimeModel([1, 2, 2, 1]), [worker("w0", 100), worker("w1", 200)]
    assert seconds(model, workers) == [near([0.01, 0.02, 0.02, 0.01]), near([0.005, 0.01, 0.01, 0.005])]
    model.learn({"w0": {0: 1.0, 1: 2.0}, "w1": {2: 1.0}}, workers, 0.0)
    assert model.measured == {0, 1, 2}
    assert seconds(model, workers) == [near([1, 2, 2, 1]), near([0.5, 1, 1, 0.5])]
    model.learn({"w0": {0: 3.0, 1: 6.0}, "w1": {2: 1.0}}, workers, 10.0)
    assert seconds(model, workers) == [near([3, 6, 6, 3]), near([0.5, 1, 1, 0.5])]
    model.learn({"w0": {0: 1.0, 1: 5.0}, "w1": {2: 1.0}}, workers, 11.0)
    assert seconds(model, workers)[0][:2] == near([1.8, 4.2])  # the same in all, shared out as measured
    model.learn({"w1": {2: 1.0}}, workers, 612.0)
    assert sum(seconds(model, workers)[0][:2]) == pytest.approx(3, rel=0.026)  # not measured for long


def test_steps_that_were_never_measured_are_as_much_longer_as_the_others() -> None:
    model, workers = StepTimeModel([10, 10, 40]), [worker("w0", 10)]
    model.learn({"w0": {0: 2.0, 1: 4.0}}, workers, 0.0)
    assert seconds(model, workers) == [near([2, 4, 12])]


def test_profiles_come_before_claims() -> None:
    """Of two boards of a class, the one that claims less is slower; a step that was not profiled is as those that were."""
    profiles = {"pi": [0.1, 0.3, None]}
    model = StepTimeModel([10, 10, 20], lambda name: profiles.get(name, ()))
    workers = [worker("w0", 100, "pi"), worker("w1", 100, "pi"), worker("w2", 50, "pi"), worker("other", 10)]
    assert seconds(model, workers) == [
        near([0.1, 0.3, 0.4]),
        near([0.1, 0.3, 0.4]),
        near([0.2, 0.6, 0.8]),
        near([1.0, 1.0, 2.0]),
    ]
    model.learn({"w0": {0: 0.2, 1: 0.6}}, workers, 0.0)
    assert seconds(model, workers)[:2] == [near([0.2, 0.6, 0.8]), near([0.1, 0.3, 0.4])]  # the worker is slow, not the steps
    profiles["pi"] = [5.0, 5.0, 5.0]  # what was measured under load is relative to the profile that was there
    assert seconds(model, workers)[1] == near([0.1, 0.3, 0.4])


def test_equal_workers_whose_claims_differ_a_little_are_equal() -> None:
    model = StepTimeModel([10, 20])
    one, other = seconds(model, [worker("w0", 1000), worker("w1", 1010)])
    assert one == other
