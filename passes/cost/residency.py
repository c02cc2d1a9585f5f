"""What of the weights stays in memory, and how much of the next step's is read while a step runs, within the budget.

With more budget than the largest step needs, the rest goes, in this order, to sessions that stay open (opening costs time
for a few kilobytes each), to reading ahead (one step's worth of bytes helps at every step) as far as computing leaves time
to read, and to *pinned* weights: a byte pinned is a byte less to read for every inference.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hyps.passes.calibration import calibrated
from hyps.passes.device import DeviceRates

#: Bytes read ahead are whole huge pages.
AHEAD_STEP_BYTES = 2 << 20
#: What the last huge pages of two steps' weights hold besides them at most.
HUGE_SLACK_BYTES = 2 * AHEAD_STEP_BYTES
#: Reading into pages that the kernel must find and clear first.
FRESH_PAGES_BYTES_PER_S = calibrated("fresh_pages_bytes_per_s")
FRESH_HUGE_PAGES_BYTES_PER_S = calibrated("fresh_huge_pages_bytes_per_s")
#: Pinned weights are tried in shares of one in so many, which bounds what of the budget is left unused: every so many
#: of them, then those near the best, and none.
PINNED_SHARES, PINNED_STRIDE = 50, 7
#: The part of a step's time that is left where it takes the session of the one before: entering it, and running.
SHARED_STEP = 0.5
#: A step of which less could be pinned is streamed: the rest would take pages of its own, not those of other steps.
LEAST_PINNED_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """What one step needs: the process peak by itself, its weights file, what its open session holds, and seconds.

    ``session_bytes`` and ``weights_bytes`` are part of ``alone_bytes``. ``shared``: a step beside it is alike, and its
    session runs both (`hyps.runtime.execution.session_pool`): none need stay open.
    """

    alone_bytes: int
    weights_bytes: int
    session_bytes: int
    compute_s: float
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """What is decided for one step, and the process peak that follows."""

    pinned_bytes: int
    ahead_bytes: int
    kept: bool
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Residences:
    """The decision for every step, and the estimated seconds of one inference after another.

    Plans are compared by ``cost``: these seconds where the device's file cache cannot hold what is streamed, else the
    seconds with all of it there; a hundredth of the other, and of reading that computing hides, breaks ties.
    ``steady``: the memory that streamed weights take turns in stays resident, for two steps' weights at a time; else
    pages are given back and taken anew at every step. ``huge_pages``: the peaks leave room for partly used huge pages.
    """

    steps: tuple[Residence, ...]
    latency_s: float
    cost: float
    steady: bool
    huge_pages: bool


def residences(needs: Iterable[StepNeeds], budget_bytes: int, device: DeviceRates) -> Residences:
    """Fill the budget; see the module. The shares of pinned weights and of reading ahead are those that take least time."""
    plan = _Filling(tuple(needs), budget_bytes, device)
    slack_fits = max(plan.bases) + HUGE_SLACK_BYTES <= budget_bytes
    return min([*plan.steady(), plan.turning(HUGE_SLACK_BYTES if slack_fits else 0)], key=lambda each: each.cost)


class _Filling:
    """The ways to fill one budget."""

    def __init__(self, needs: Sequence[StepNeeds], budget_bytes: int, device: DeviceRates) -> None:
        self.needs = needs
        self._budget_bytes = budget_bytes
        self._device = device
        self._kept = _kept(needs, budget_bytes)
        sessions = sum(need.session_bytes for need, keep in zip(needs, self._kept, strict=True) if keep)
        self.bases = [
            need.alone_bytes + sessions - (need.session_bytes if keep else 0)
            for need, keep in zip(needs, self._kept, strict=True)
        ]

    def turning(self, slack_bytes: int) -> Residences:
        """Streamed weights come and go: what one step does not need, another has. ``slack_bytes`` are for huge pages."""
        room = self._budget_bytes - slack_bytes
        fresh = FRESH_HUGE_PAGES_BYTES_PER_S if slack_bytes else FRESH_PAGES_BYTES_PER_S
        total = sum(need.weights_bytes for need in self.needs)

        @functools.cache
        def tried(share: int) -> tuple[float, float, list[int], list[int]]:
            pinned = _pinned(self.needs, self.bases, room, total * share // PINNED_SHARES)
            ahead = _ahead(self.needs, self.bases, pinned, room)
            return (*self._cost(pinned, ahead, fresh), pinned, ahead)

        coarse = min(range(PINNED_SHARES, -1, -PINNED_STRIDE), key=lambda share: tried(share)[0])
        near = range(min(PINNED_SHARES, coarse + PINNED_STRIDE - 1), max(0, coarse - PINNED_STRIDE + 1) - 1, -1)
        cost, latency, pinned, ahead = min(map(tried, (*near, 0)), key=lambda plan: plan[0])
        resident = sum(pinned)
        peaks = [
            base + resident - pin + read + slack_bytes for base, pin, read in zip(self.bases, pinned, ahead, strict=True)
        ]
        return self._residences(pinned, ahead, peaks, latency, cost, huge_pages=slack_bytes > 0, steady=False)

    def steady(self) -> Iterator[Residences]:
        """The memory for two steps' weights stays resident, the next step's are read in full; the largest are pinned."""
        order = sorted(range(len(self.needs)), key=lambda index: (-self.needs[index].weights_bytes, index))
        pinned = [0] * len(self.needs)
        most: list[int] | None = None
        for index in (None, *order):
            if index is not None:
                pinned[index] = self.needs[index].weights_bytes
            if (found := self._steady(pinned)) is not None:
                most = [*pinned]
                yield found
        for index in order if most else ():
            assert most
            tried = [*most]
            tried[index] = self.needs[index].weights_bytes
            if tried != most and (found := self._steady(tried)) is not None:
                most = tried
                yield found

    def _steady(self, pinned: Sequence[int]) -> Residences | None:
        """What follows from pinning so many bytes of each step; None when it does not fit."""
        streamed = [need.weights_bytes - pin for need, pin in zip(self.needs, pinned, strict=True)]
        beside = arena_bytes(streamed) + sum(pinned)
        peaks = [base - own - pin + beside for base, own, pin in zip(self.bases, streamed, pinned, strict=True)]
        if max(peaks) > self._budget_bytes:
            return None
        ahead = _ahead(self.needs, [0] * len(pinned), pinned, 1 << 62)
        cost, latency = self._cost(pinned, ahead, math.inf)
        return self._residences(pinned, ahead, peaks, latency, cost, huge_pages=True, steady=True)

    def _cost(self, pinned: Sequence[int], ahead: Sequence[int], fresh_bytes_per_s: float) -> tuple[float, float]:
        """Seconds, as `Residences.cost` has them, and of an inference; pages that are taken anew are read at such a rate."""
        streamed_bytes = [need.weights_bytes - pin for need, pin in zip(self.needs, pinned, strict=True)]
        fresh = _fresh(streamed_bytes, pinned, ahead)
        storage, cached = self._device.storage_bytes_per_s, self._device.memory_bytes_per_s

        def latency(bytes_per_s: float) -> float:
            rates = [min(bytes_per_s, fresh_bytes_per_s) if each else bytes_per_s for each in fresh]
            return _latency(self.needs, streamed_bytes, ahead, self._kept, rates, self._device.step_s)

        cold_s, cached_s = latency(storage), latency(cached)
        streamed = sum(streamed_bytes)
        reading_s = streamed / self._device.storage_bytes_per_s
        if streamed > self._device.cache_bytes:
            return cold_s + (cached_s + reading_s) / 100, cold_s
        return cached_s + (cold_s + reading_s) / 100, cold_s

    def _residences(
        self,
        pinned: Sequence[int],
        ahead: Sequence[int],
        peaks: Sequence[int],
        latency_s: float,
        cost: float,
        *,
        huge_pages: bool,
        steady: bool,
    ) -> Residences:
        steps = tuple(
            Residence(pinned_bytes=p, ahead_bytes=a, kept=keep, peak_bytes=peak)
            for p, a, keep, peak in zip(pinned, ahead, self._kept, peaks, strict=True)
        )
        return Residences(steps=steps, latency_s=latency_s, cost=cost, steady=steady, huge_pages=huge_pages)


def arena_bytes(streamed: Sequence[int]) -> int:
    """What the memory needs in which the streamed weights of steps take turns, two neighbours (in a circle) at a time.

    An odd one out lies between the others, beside the first and the last but one (`hyps.runtime.execution.weight_buffers`).
    """
    sizes = [-(-size // AHEAD_STEP_BYTES) * AHEAD_STEP_BYTES for size in streamed if size]
    if len(sizes) < 2:
        return sum(sizes)
    pairs = [a + b for a, b in zip(sizes, [*sizes[1:], sizes[0]], strict=True)]
    return max(*pairs, sizes[0] + sizes[-1] + sizes[-2] if len(sizes) % 2 else 0)


def _kept(needs: Sequence[StepNeeds], budget_bytes: int) -> list[bool]:
    """The sessions that stay open: the smallest first, as far as they fit beside the largest step."""
    room = budget_bytes - max(need.alone_bytes for need in needs)
    kept = [False] * len(needs)
    alone = (index for index, need in enumerate(needs) if not need.shared)
    for index in sorted(alone, key=lambda index: needs[index].session_bytes):
        room -= needs[index].session_bytes
        if room < 0:
            break
        kept[index] = True
    return kept


def _pinned(needs: Sequence[StepNeeds], bases: Sequence[int], budget_bytes: int, limit_bytes: int) -> list[int]:
    """At most ``limit_bytes`` of weights to pin: whole steps, the one with the largest peak first, and a part of one more.

    Pinning a step's own weights does not raise its peak, but that of every other.
    """
    pinned = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda index: (-bases[index], index))
    resident = largest_before = 0
    for index, after in itertools.zip_longest(order, order[1:]):
        others = max(largest_before, bases[after] if after is not None else 0)
        room = min(budget_bytes - others, limit_bytes) - resident
        pinned[index] = max(0, min(needs[index].weights_bytes, room))
        if pinned[index] < needs[index].weights_bytes * LEAST_PINNED_SHARE:
            pinned[index] = 0
        resident += pinned[index]
        if pinned[index] < needs[index].weights_bytes:
            break
        largest_before = max(largest_before, bases[index] - pinned[index])
    return pinned


def _ahead(needs: Sequence[StepNeeds], bases: Sequence[int], pinned: Sequence[int], budget_bytes: int) -> list[int]:
    """Bytes of the next streamed step's weights that have room beside each step, and beside all steps between."""
    count, resident = len(needs), sum(pinned)
    ahead = [0] * count
    following = later = 0
    for turn in range(2 * count - 1, -1, -1):  # twice, for behind the last step the first follows
        index, after = turn % count, (turn + 1) % count
        streamed = needs[after].weights_bytes - pinned[after]
        following, later = (streamed, streamed) if streamed else (following, later)
        room = budget_bytes - bases[index] - resident + pinned[index]
        later = max(0, min(later, room))
        ahead[index] = later if later == following else later // AHEAD_STEP_BYTES * AHEAD_STEP_BYTES
    streamed_steps = [index for index in range(count) if needs[index].weights_bytes > pinned[index]]
    if len(streamed_steps) == 1:  # it is read again only when it has run
        ahead[streamed_steps[0]] = 0
    return ahead


def _fresh(streamed: Sequence[int], pinned: Sequence[int], ahead: Sequence[int]) -> list[bool]:
    """For every step, whether what is left to read of it comes into pages that were given back since the last use.

    They were not where the step before lay in the same place, or where all of it is read ahead (`hyps.runtime.execution.weight_buffers`).
    """
    found = []
    for index, own in enumerate(streamed):
        before, there = streamed[index - 1], ahead[index - 1]
        same_place = not there and not pinned[index - 1] and before + AHEAD_STEP_BYTES > own
        found.append(bool(pinned[index]) or not (same_place or there >= own))
    return found


def _latency(
    needs: Sequence[StepNeeds],
    streamed: Sequence[int],
    ahead: Sequence[int],
    kept: Sequence[bool],
    bytes_per_s: Sequence[float],
    step_s: float,
) -> float:
    """Estimated seconds of an inference that follows another: reading beside computing, then what is left to read."""
    seconds, read = 0.0, 0.0
    for turn in range(2 * len(needs)):
        index = turn % len(needs)
        if turn == len(needs):
            seconds = 0.0
        if streamed[index]:
            seconds += max(0.0, streamed[index] - read) / bytes_per_s[index]
            read = 0.0
        opening_s = 0.0 if kept[index] else step_s * (SHARED_STEP if needs[index].shared else 1)
        spent = needs[index].compute_s + opening_s
        read = min(float(ahead[index]), read + spent * bytes_per_s[(index + 1) % len(needs)])
        seconds += spent
    return seconds
