"""The chosen residency keeps within the budget, leaves little of it unused, and saves reading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.passes.cost.residency import ResidencyPlan, StepNeeds, plan_residency
from hyps.passes.device import DeviceRates
from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.residency import Residency, StepMemory

MB = 1_000_000
#: Reading a megabyte takes as long as computing for ten milliseconds.
SLOW = DeviceRates(storage_bytes_per_s=100e6, step_s=0.0, available_bytes=0)


def step(base: int, weights: int, session: int = 0, compute_s: float = 0.01) -> StepNeeds:
    """Return a step that needs ``base`` besides its weights and its session, all in MB."""
    memory = StepMemory(alone_bytes=(base + weights + session) * MB, weights_bytes=weights * MB, session_bytes=session * MB)
    return StepNeeds(memory=memory, compute_s=compute_s, opening_s=0.0)


def sharing(need: StepNeeds, **changes: float) -> StepNeeds:
    """Return the same step, run by a neighbour's session."""
    return replace(need, memory=replace(need.memory, shares_session=True), **changes)


def peaks(needs: Sequence[StepNeeds], found: Residency) -> list[int]:
    """Return the peak of each step, added up from the decisions."""
    pinned = sum(each.pinned_bytes for each in found.steps)
    sessions = sum(
        need.memory.session_bytes for need, each in zip(needs, found.steps, strict=True) if each.session_stays_open
    )
    peaks = []
    for need, each in zip(needs, found.steps, strict=True):
        own_session = need.memory.session_bytes if each.session_stays_open else 0
        slack = HUGE_SLACK_BYTES if found.huge_pages else 0
        peaks.append(
            need.memory.alone_bytes + sessions - own_session + pinned - each.pinned_bytes + each.ahead_bytes + slack
        )
    return peaks


NEEDS = st.lists(
    st.builds(step, st.integers(0, 40), st.integers(0, 60), st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=8
)


@settings(deadline=None)
@given(needs=NEEDS, spare=st.integers(0, 300), rate=st.sampled_from([1e6, 20e6, 1e9, 1e10]), cached=st.booleans())
def test_the_budget_is_kept(needs: list[StepNeeds], spare: int, rate: float, cached: bool) -> None:
    budget = max(need.memory.alone_bytes for need in needs) + spare * MB
    device = DeviceRates(storage_bytes_per_s=rate, available_bytes=1 << 40 if cached else 0)
    decision = plan_residency(needs, budget, device).residency
    found = decision.steps
    assert [each.peak_bytes for each in found] == peaks(needs, decision)
    assert max(each.peak_bytes for each in found) <= budget
    assert all(0 <= each.pinned_bytes <= need.memory.weights_bytes for need, each in zip(needs, found, strict=True))


@settings(deadline=None)
@given(needs=NEEDS, spare=st.integers(0, 300))
def test_on_slow_storage_the_budget_is_used(needs: list[StepNeeds], spare: int) -> None:
    """At most the weights less the budget's rest above the working set are read, within 2 % and some huge pages."""
    budget = max(need.memory.alone_bytes for need in needs) + spare * MB
    device = DeviceRates(storage_bytes_per_s=1e5, available_bytes=0)
    found = plan_residency(needs, budget, device).residency.steps
    total, pinned = sum(need.memory.weights_bytes for need in needs), sum(each.pinned_bytes for each in found)
    working_set = max(each.peak_bytes for each in found) - pinned
    assert total - pinned <= max(0, total - (budget - working_set)) + 0.02 * total + 4 * HUGE_SLACK_BYTES


@settings(deadline=None)
@given(needs=NEEDS, spare=st.integers(0, 300))
def test_what_is_read_ahead_fits_beside_every_step_until_it_is_used(needs: list[StepNeeds], spare: int) -> None:
    budget = max(need.memory.alone_bytes for need in needs) + spare * MB
    found = plan_residency(needs, budget, SLOW).residency.steps
    for (need, each), after in zip(zip(needs[1:], found[1:], strict=True), found, strict=False):
        if need.memory.weights_bytes > each.pinned_bytes:
            assert after.ahead_bytes <= need.memory.weights_bytes - each.pinned_bytes
        else:
            assert after.ahead_bytes <= each.ahead_bytes


@pytest.mark.parametrize(("rate", "part"), [(22e6, 0.85), (95e6, 0.95)])
def test_compressed_weights_come_sooner(rate: float, part: float) -> None:
    """By what the storage need not read, or up to the rate of decompression; estimates are on a scale of 3 %."""
    device = replace(SLOW, storage_bytes_per_s=rate, decompression_bytes_per_s=100e6)
    needs = [step(50, 40, compute_s=0.0), step(50, 30, compute_s=0.0)]
    plain = decided(needs, 90, device)
    compressed = decided(needs, 90, device.with_compressed_weights())
    assert compressed.residency == plain.residency
    assert compressed.latency_s == pytest.approx(part * plain.latency_s, rel=0.03)


def decided(needs: Sequence[StepNeeds], budget: int, device: DeviceRates = SLOW) -> ResidencyPlan:
    return plan_residency(needs, budget * MB, device)


def test_with_room_for_all_everything_stays() -> None:
    needs = [step(10, 20, 1), step(5, 40, 1), step(20, 30, 1)]
    found = decided(needs, 10_000)
    assert [each.pinned_bytes for each in found.residency.steps] == [20 * MB, 40 * MB, 30 * MB]
    assert all(each.session_stays_open for each in found.residency.steps)
    assert found.latency_s == pytest.approx(0.03, rel=0.03)


def test_without_room_nothing_stays() -> None:
    needs = [step(10, 40), step(10, 40), step(10, 40)]
    found = decided(needs, 50)
    assert [(each.pinned_bytes, each.ahead_bytes) for each in found.residency.steps] == [(0, 0)] * 3
    assert found.latency_s == pytest.approx(3 * 0.4 + 0.03, rel=0.03)


def test_pinning_saves_what_the_budget_leaves() -> None:
    """Pinned = budget - working set: 10 + 40 of 90 MB are needed, so 40 of 160 MB stay."""
    needs = [step(10, 40, compute_s=0.0)] * 4
    found = decided(needs, 90)
    assert sum(each.pinned_bytes for each in found.residency.steps) == pytest.approx(
        40 * MB, abs=0.02 * 160 * MB + HUGE_SLACK_BYTES
    )


def test_where_computing_hides_reading_it_is_read_ahead() -> None:
    """Each step computes for as long as the next one's weights take to read."""
    needs = [step(10, 40, compute_s=0.4)] * 4
    assert decided(needs, 96).latency_s == pytest.approx(4 * 0.4, rel=0.03)


def test_a_step_alone_reads_nothing_ahead_of_itself() -> None:
    (found,) = decided([step(10, 40)], 50).residency.steps
    assert found.ahead_bytes == 0


def test_sessions_that_are_shared_take_no_room() -> None:
    """Their memory goes to weights."""
    own = [replace(step(40, 10, session=1), opening_s=0.1)] * 8
    budget = own[0].memory.alone_bytes + 8 * MB
    kept, shared = (plan_residency(needs, budget, SLOW).residency.steps for needs in (own, [*map(sharing, own)]))
    assert sum(each.session_stays_open for each in kept) == 8
    assert not any(each.session_stays_open for each in shared)
    assert sum(each.ahead_bytes for each in shared) > sum(each.ahead_bytes for each in kept)


def test_small_steps_cost_time_though_a_session_runs_all() -> None:
    few, many = [step(40, 30)] * 4, [sharing(step(40, 3), compute_s=0.001)] * 40
    device = replace(SLOW, available_bytes=1 << 40, step_s=0.001)
    assert plan_residency(few, 110 * MB, device).latency_s < plan_residency(many, 110 * MB, device).latency_s


@settings(deadline=None)
@given(needs=NEEDS, spare=st.integers(0, 300), more=st.integers(0, 300), cached=st.booleans())
def test_a_larger_budget_is_hardly_ever_slower(needs: list[StepNeeds], spare: int, more: int, cached: bool) -> None:
    budget = max(need.memory.alone_bytes for need in needs) + spare * MB
    device = replace(SLOW, available_bytes=math.inf if cached else 0)
    less = plan_residency(needs, budget, device).latency_s
    assert plan_residency(needs, budget + more * MB, device).latency_s <= 1.05 * less


def test_steps_that_run_seldom_are_streamed() -> None:
    """Half of all inferences end after the first step, and most others after the second."""
    needs = [replace(step(20, 30), reach=reach) for reach in (1.0, 0.5, 0.1)]
    found = plan_residency(needs, 85 * MB, SLOW).residency.steps
    assert [each.pinned_bytes for each in found] == [30 * MB, 5 * MB, 0]
    always = plan_residency([step(20, 30)] * 3, 85 * MB, SLOW)
    assert sum(each.pinned_bytes for each in always.residency.steps) == 35 * MB


def test_the_mean_over_exits_is_counted() -> None:
    """Nothing has room but the steps themselves: each is read, 0.3 s, and computed, if the inference gets there."""
    needs = [replace(step(0, 30, compute_s=0.1), reach=reach) for reach in (1.0, 0.5, 0.1)]
    found = plan_residency(needs, 30 * MB, SLOW)
    assert found.storage_s == pytest.approx(1.6 * 0.4, rel=0.03)
    assert found.reading_s == pytest.approx(1.6 * 0.3)


def test_reading_ahead_past_a_likely_exit_is_held_back_where_that_costs_nothing() -> None:
    """The second step is small and hidden by none of the first; so it is read only by those inferences that stay."""
    needs = [replace(step(60, 0, compute_s=10.0), reach=1.0), replace(step(0, 40, compute_s=0.0), reach=0.01)]
    held = plan_residency(needs, 100 * MB, SLOW)
    assert [each.ahead_bytes for each in held.residency.steps] == [0, 0]
    assert held.reading_s < 0.01
    always = plan_residency([replace(need, reach=1.0) for need in needs], 100 * MB, SLOW)
    assert always.residency.steps[0].ahead_bytes > 0 or always.residency.steps[1].pinned_bytes > 0
