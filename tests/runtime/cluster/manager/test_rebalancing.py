"""Test decisions to move, without a clock: what is worth a move, and that jitter causes at most one in ten minutes."""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.runtime.cluster.manager.monitor import CostModel, Monitor
from hyps.runtime.cluster.manager.rebalancing import MARGIN, MoveRecord, Outlook, decide
from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed


def first_move(gain: float, *, cost_s: float = 1.0, busy: float = 1.0, limit_s: int = 600) -> int | None:
    """Return the second at which a constant gain leads to a move."""
    record = MoveRecord()
    for now in range(limit_s):
        decision = decide(Outlook(now=now, present=1.0, best=1.0 + gain, cost_s=cost_s, busy=busy), record)
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
    assert first_move(2.0, busy=0.2) is None


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

    A share is what a pipeline gives a worker, for the sum of speeds at the last move; nine samples are remembered.
    """
    shares = [1 / workers] * workers
    samples: list[deque[float]] = [deque(maxlen=9) for _ in range(workers)]
    record, moves = MoveRecord(), []
    for now in range(seconds):
        for each in range(workers):
            samples[each].append(1 / speed(each, now))
        if now < 9:
            continue
        known = [1 / statistics.median(each) for each in samples]
        present = min(rate / share for rate, share in zip(known, shares, strict=True) if share)
        decision = decide(Outlook(now=now, present=present, best=sum(known), cost_s=5.0), record)
        record = decision.record
        if decision.verdict == "move":
            moves.append(now)
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
    assert monitor.service_s("w0", range(3, 5)) == pytest.approx(0.4)
    assert monitor.link_s("w0") == pytest.approx(0.1)
    assert monitor.link_bytes_per_s() == pytest.approx((1 << 20) / 0.1)
    assert monitor.busy_share("w0", 15.0) == pytest.approx(0.2)
    monitor.forget("w0")
    assert (monitor.service_s("w0", range(3, 5)), monitor.link_s("w0"), monitor.queue("w0")) == (None, None, ())


def test_a_worker_cannot_claim_more_time_than_passed_or_anothers_input() -> None:
    monitor = Monitor()
    key = Key(job=JOB, sub_bundle=0, attempt=0)
    monitor.sent(key, "w0", range(1), 0, 10.0)
    monitor.timed("thief", Timed(key=key, compute_s=5.0, steps_s=(5.0,)), 11.0)
    assert monitor.service_s("thief", range(1)) is None
    monitor.timed("w0", Timed(key=key, compute_s=500.0, steps_s=(500.0,)), 11.0)
    monitor.timed("w0", Timed(key=key, compute_s=0.5), 11.0)
    assert monitor.service_s("w0", range(1)) == 1.0


def test_costs_and_speeds_of_workers_that_slow_down() -> None:
    """A step's cost stays what it was; the worker's speed is what changes."""
    model, claims = CostModel(), {"w0": 100.0, "w1": 200.0}
    model.learn({"w0": {0: 1.0, 1: 2.0}, "w1": {2: 1.0}}, claims, 0.0)
    assert model.costs([1, 2, 2, 1]) == [100, 200, 200, 100]
    assert [model.speed(name, claim) for name, claim in claims.items()] == [100.0, 200.0]
    model.learn({"w0": {0: 3.0, 1: 6.0}, "w1": {2: 1.0}}, claims, 10.0)
    assert model.costs([1, 2, 2, 1]) == [100, 200, 200, 100]
    assert model.speed("w0", 100.0) == pytest.approx(100 / 3)
    model.learn({"w1": {2: 1.0}}, claims, 611.0)
    assert model.speed("w0", 100.0) == 100.0  # not measured for long
    assert model.speed("new", 50.0) == 50.0
