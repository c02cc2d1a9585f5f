"""Choose, by the time saved, which weights stay in memory and how much of the next step's is read ahead.

The part of a budget that the largest step does not need is spent in this order:

- on sessions that stay open: opening one costs time, keeping one a few kilobytes;
- on reading ahead, as far as computing leaves time to read: one step's worth of bytes helps at every step. Past an exit
  at which most inferences end nothing is read ahead: a byte that is read in vain counts as one that is waited for;
- on *pinned* weights: a byte pinned is a byte less to read for every inference.

`hyps.runtime.bundle.residency` says what fits and which peak follows; this module estimates seconds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hyps.passes.calibration import calibrated
from hyps.passes.device import DeviceRates
from hyps.runtime.bundle.exits import likely_exits
from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.residency import (
    OpenSessions,
    Residency,
    StepMemory,
    alternating_residency,
    closed_sessions,
    held_back,
    open_sessions,
    pin_highest_peaks,
    read_ahead,
)

#: How much faster the system finds and clears huge pages than small ones.
HUGE_PAGES_FACTOR = calibrated("fresh_huge_pages_bytes_per_s") / calibrated("fresh_pages_bytes_per_s")
#: The limits to try for pinned weights are multiples of a fiftieth of all weights, which bounds the unused part of the
#: budget: every seventh multiple, then those near the best, and none.
PINNED_PARTS, PINNED_STRIDE = 50, 7
#: The part of a step's opening time that remains where it takes over the session of the step before.
SHARED_SESSION_PART = 0.5
#: The factor between two steps of the scale of estimated times.
SCALE = 1.03
#: A schedule of more steps gets fewer trials.
MANY_STEPS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """The memory that one step needs, and its seconds of computing, and of opening its session.

    ``fresh_s`` are the seconds in which the kernel finds and clears small pages for activations. ``reach`` is the part of
    all inferences that runs the step: the others end at an exit before it.
    """

    memory: StepMemory
    compute_s: float
    opening_s: float
    fresh_s: float = 0.0
    reach: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyPlan:
    """The data that stays in memory, and the estimated seconds of one inference that follows another, the mean over exits.

    ``storage_s`` are the seconds where every weight that is read comes from storage, ``cached_s`` where it comes from the
    system's file cache. ``latency_s`` is the one that the device's cache allows. ``reading_s`` is the time that storage
    takes for what is read, hidden by computing or not.
    """

    residency: Residency
    storage_s: float
    cached_s: float
    latency_s: float
    reading_s: float

    @property
    def rank(self) -> tuple[float, float]:
        """The lower the better: the latency, then what would be saved if the cache were larger or smaller."""
        return self.latency_s, self.storage_s + self.cached_s + self.reading_s


def rounded_up(seconds: float) -> float:
    """Return an estimate on a scale of steps of 3 %: no estimate is better than that, and plans within it count as equal."""
    return SCALE ** math.ceil(math.log(seconds, SCALE) - 1e-9) if seconds > 0 else 0.0


def plan_residency(needs: Iterable[StepNeeds], budget_bytes: int, device: DeviceRates) -> ResidencyPlan:
    """Return the fastest plan within the budget, which has room for each step alone."""
    needs = tuple(needs)
    memories = [need.memory for need in needs]
    every = open_sessions(memories, budget_bytes)
    is_short = len(needs) <= MANY_STEPS
    found: list[ResidencyPlan] = []
    for sessions in (every, closed_sessions(memories)) if any(every.stay_open) and is_short else (every,):
        search = _Search(needs, sessions, budget_bytes, device)
        slack_fits = max(sessions.base_bytes) + HUGE_SLACK_BYTES <= budget_bytes
        slacks = ((0, HUGE_SLACK_BYTES) if is_short else (HUGE_SLACK_BYTES,)) if slack_fits else (0,)
        found += map(search.alternating, slacks)
    return min(found, key=lambda each: each.rank)


class _Search:
    """The search for the best use of one budget."""

    def __init__(self, needs: Sequence[StepNeeds], sessions: OpenSessions, budget_bytes: int, device: DeviceRates) -> None:
        memories = [need.memory for need in needs]
        self.sessions = sessions
        self._weights_bytes = [memory.weights_bytes for memory in memories]
        self._budget_bytes = budget_bytes
        self._device = device
        self._reach = [need.reach for need in needs]
        self._likely = [*likely_exits(self._reach)]
        self._pin_orders = ((), tuple(self._reach)) if min(self._reach) < 1 else ((),)
        opening_s = [
            0.0 if stays else need.opening_s * (SHARED_SESSION_PART if need.memory.shares_session else 1)
            for need, stays in zip(needs, self.sessions.stay_open, strict=True)
        ]
        #: The seconds of each step after its weights are in memory; the next step's are read ahead meanwhile.
        self._busy_s = self._huge_busy_s = [
            device.step_s + need.compute_s + opening + need.fresh_s for need, opening in zip(needs, opening_s, strict=True)
        ]
        if any(need.fresh_s for need in needs):
            saved = 1 - 1 / HUGE_PAGES_FACTOR
            self._huge_busy_s = [busy - saved * need.fresh_s for busy, need in zip(self._busy_s, needs, strict=True)]

    def alternating(self, slack_bytes: int) -> ResidencyPlan:
        """Return the best plan in which streamed weights come and go; ``slack_bytes`` are kept for huge pages."""
        room_bytes = self._budget_bytes - slack_bytes
        total = sum(self._weights_bytes)
        bases = self.sessions.base_bytes

        @functools.cache
        def tried(parts: int) -> ResidencyPlan:
            found = []
            for order in self._pin_orders:
                pinned = pin_highest_peaks(self._weights_bytes, bases, room_bytes, total * parts // PINNED_PARTS, order)
                ahead = read_ahead(self._weights_bytes, bases, pinned, room_bytes)
                ahead = held_back(self._weights_bytes, pinned, ahead, self._likely)
                choices = [ahead, [0] * len(ahead)] if any(ahead) else [ahead]
                found += [self._alternating(pinned, each, slack_bytes) for each in choices]
            return min(found, key=lambda each: each.rank)

        coarse = min(range(PINNED_PARTS, -1, -PINNED_STRIDE), key=lambda parts: tried(parts).rank)
        near = range(min(PINNED_PARTS, coarse + PINNED_STRIDE - 1), max(0, coarse - PINNED_STRIDE + 1) - 1, -1)
        return min(map(tried, (*near, 0)), key=lambda each: each.rank)

    def _alternating(self, pinned_bytes: Sequence[int], ahead_bytes: Sequence[int], slack_bytes: int) -> ResidencyPlan:
        residency = alternating_residency(self.sessions, pinned_bytes, ahead_bytes, slack_bytes=slack_bytes)
        ahead_bytes = [step.ahead_bytes for step in residency.steps]
        streamed_bytes = [size - step.pinned_bytes for size, step in zip(self._weights_bytes, residency.steps, strict=True)]
        busy_s = self._huge_busy_s if residency.huge_pages else self._busy_s

        device, streamed = self._device, sum(streamed_bytes)
        rates = device.weights_bytes_per_s, device.cached_weights_bytes_per_s
        slow, fast = (_expected(busy_s, streamed_bytes, ahead_bytes, self._reach, rate) for rate in rates)
        storage_s, cached_s = rounded_up(slow.seconds), rounded_up(fast.seconds)
        peak_bytes = max(step.peak_bytes for step in residency.steps)
        is_cached = streamed * device.stored_part + peak_bytes <= device.available_bytes
        return ResidencyPlan(
            residency=residency,
            storage_s=storage_s,
            cached_s=cached_s,
            latency_s=cached_s if is_cached or not streamed else storage_s,
            reading_s=slow.read_bytes / device.weights_bytes_per_s,
        )


class _Expected(NamedTuple):
    """What an inference takes in the mean: seconds, and bytes that are read, needed or not."""

    seconds: float
    read_bytes: float


def _expected(
    busy_s: Sequence[float],
    streamed_bytes: Sequence[int],
    ahead_bytes: Sequence[int],
    reach: Sequence[float],
    bytes_per_s: float,
) -> _Expected:
    """Return what an inference that follows another takes, the mean over all exits.

    Each step reads what is left of its weights, then is busy while the next step's are read ahead. ``reach`` is the part of
    all inferences that runs each step. What was read ahead for a step that does not run is lost, and nothing is read ahead
    for the first step then.
    """
    seconds, read, wasted = 0.0, 0.0, 0.0
    for turn in range(2 * len(busy_s)):
        index = turn % len(busy_s)
        if turn == len(busy_s):
            seconds, wasted, read = 0.0, 0.0, read * reach[-1]
        if streamed_bytes[index]:
            seconds += reach[index] * max(0.0, streamed_bytes[index] - read) / bytes_per_s
            read = 0.0
        read = min(float(ahead_bytes[index]), read + busy_s[index] * bytes_per_s)
        seconds += reach[index] * busy_s[index]
        if index + 1 < len(reach):
            wasted += (reach[index] - reach[index + 1]) * read
    needed = sum(part * nbytes for part, nbytes in zip(reach, streamed_bytes, strict=True))
    return _Expected(seconds, needed + wasted)
