"""Decisions on what stays in memory keep every step within the budget."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.residency import (
    StepMemory,
    alternating_residency,
    held_back,
    open_sessions,
    pin_highest_peaks,
    pin_in_order,
    read_ahead,
    sub_bundle_residency,
)

MB = 1_000_000


def step(base: int, weights: int, session: int) -> StepMemory:
    """Return a step that needs ``base`` besides its weights and its session, all in MB."""
    return StepMemory(alone_bytes=(base + weights + session) * MB, weights_bytes=weights * MB, session_bytes=session * MB)


STEPS = st.lists(st.builds(step, st.integers(0, 40), st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=8)


def sizes(steps: Sequence[StepMemory]) -> list[int]:
    return [each.weights_bytes for each in steps]


@given(steps=STEPS, spare=st.integers(0, 300), sessions=st.integers(0, 20))
def test_a_sub_bundle_keeps_within_its_budget(steps: list[StepMemory], spare: int, sessions: int) -> None:
    budget = max(each.alone_bytes for each in steps) + spare * MB
    found = sub_bundle_residency(steps, sessions * MB, budget)
    pinned = sum(each.pinned_bytes for each in found.steps)
    held = sessions * MB if found.steps[0].session_stays_open else 0
    for need, each in zip(steps, found.steps, strict=True):
        assert each.pinned_bytes in (0, need.weights_bytes)
        assert each.peak_bytes == need.alone_bytes + pinned - each.pinned_bytes + held
        assert each.peak_bytes + (HUGE_SLACK_BYTES if found.huge_pages else 0) <= budget
        assert each.ahead_bytes == 0
    assert {each.session_stays_open for each in found.steps} == {sessions <= spare}


@given(steps=STEPS, spare=st.integers(0, 300))
def test_files_are_pinned_in_order_as_far_as_every_step_fits(steps: list[StepMemory], spare: int) -> None:
    """The oracle adds up, for every file, the peaks that pinning it would make."""
    bases = [each.alone_bytes for each in steps]
    budget = max(bases) + spare * MB
    expected = [0] * len(steps)
    for index, size in enumerate(sizes(steps)):
        more = [*expected[:index], size, *expected[index + 1 :]]
        if max(base + sum(more) - own for base, own in zip(bases, more, strict=True)) <= budget:
            expected = more
    assert pin_in_order(sizes(steps), bases, budget) == expected


@given(steps=STEPS, spare=st.integers(0, 300))
def test_open_sessions_fit_next_to_the_largest_step(steps: list[StepMemory], spare: int) -> None:
    budget = max(each.alone_bytes for each in steps) + spare * MB
    found = open_sessions(steps, budget)
    assert max(found.base_bytes) <= budget
    kept = [each.session_bytes for each, stays in zip(steps, found.stay_open, strict=True) if stays]
    closed = [each.session_bytes for each, stays in zip(steps, found.stay_open, strict=True) if not stays]
    assert max(kept, default=0) <= min(closed, default=3 * MB)


@given(steps=STEPS, spare=st.integers(0, 100), repeats=st.booleans())
def test_what_is_read_ahead_has_room(steps: list[StepMemory], spare: int, repeats: bool) -> None:
    budget = max(each.alone_bytes for each in steps) + spare * MB
    sessions = open_sessions(steps, budget)
    nothing = [0] * len(steps)
    ahead = read_ahead(sizes(steps), sessions.base_bytes, nothing, budget, repeats=repeats)
    found = alternating_residency(sessions, nothing, ahead)
    assert max(each.peak_bytes for each in found.steps) <= budget
    if not repeats:
        assert ahead[-1] == 0


@given(steps=STEPS, spare=st.integers(0, 300), limit=st.integers(0, 300), seed=st.integers(0, 100))
def test_pinning_by_reach_keeps_within_the_budget(steps: list[StepMemory], spare: int, limit: int, seed: int) -> None:
    bases = [each.alone_bytes for each in steps]
    budget = max(bases) + spare * MB
    reach = [1 / (1 + (seed * 7 + index * 13) % 5) for index in range(len(steps))]
    pinned = pin_highest_peaks(sizes(steps), bases, budget, limit * MB, reach)
    assert sum(pinned) <= limit * MB
    assert all(base + sum(pinned) - own <= budget for base, own in zip(bases, pinned, strict=True))
    assert pin_highest_peaks(sizes(steps), bases, budget, limit * MB) == pin_highest_peaks(
        sizes(steps), bases, budget, limit * MB, [0.5] * len(steps)
    )


def test_what_is_held_back() -> None:
    weights, pinned = [4, 4, 4, 4, 4], [0, 4, 0, 0, 4]
    assert held_back(weights, pinned, [1, 2, 3, 4, 5], []) == [1, 2, 3, 4, 5]
    assert held_back(weights, pinned, [1, 2, 3, 4, 5], [1]) == [0, 0, 3, 4, 5]
    assert held_back(weights, pinned, [1, 2, 3, 4, 5], [2]) == [1, 2, 0, 4, 5]
    assert held_back(weights, pinned, [1, 2, 3, 4, 5], [1, 3]) == [0, 0, 3, 0, 5]
