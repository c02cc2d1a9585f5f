"""Decide what stays in memory within a budget: open sessions, pinned weights, weights read ahead; and the peak that follows.

The planner, sub-bundles and batches all decide with these functions, so that their peaks agree. How much time a decision
saves is the planner's to estimate (`hyps.passes.cost.residency`).

Sequences have one entry for each step, in the order of the schedule. A step's *base* is its process peak with the sessions
that stay open, before any weights are pinned or read ahead.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.pages import HUGE_PAGE_BYTES, HUGE_SLACK_BYTES

#: A step is streamed unless this part of its weights can be pinned: the rest would take pages of its own, not share others'.
_LEAST_PINNED_PART = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMemory:
    """The memory that one step needs, in bytes.

    ``alone_bytes`` is the process peak when nothing else stays in memory; the step's weights file and its session are part
    of it. ``shares_session``: a neighbour's session runs this step, too, so that it need not stay open.
    """

    alone_bytes: int
    weights_bytes: int
    session_bytes: int = 0
    shares_session: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResidency:
    """The data that stays in memory for one step, and the process peak that follows."""

    pinned_bytes: int
    ahead_bytes: int
    session_stays_open: bool
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """The data that stays in memory, for every step of a schedule.

    ``huge_pages``: the peaks leave room for partly used huge pages.
    """

    steps: tuple[StepResidency, ...]
    huge_pages: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSessions:
    """The sessions that stay open, and each step's base with them."""

    stay_open: tuple[bool, ...]
    base_bytes: tuple[int, ...]


def open_sessions(steps: Sequence[StepMemory], budget_bytes: int) -> OpenSessions:
    """Keep sessions open, the smallest first, as far as they fit next to the largest step; an only step's costs nothing."""
    if len(steps) == 1:
        return OpenSessions(stay_open=(True,), base_bytes=(steps[0].alone_bytes,))
    room_bytes = budget_bytes - max(step.alone_bytes for step in steps)
    stay_open = [False] * len(steps)
    own = (index for index, step in enumerate(steps) if not step.shares_session)
    for index in sorted(own, key=lambda index: steps[index].session_bytes):
        room_bytes -= steps[index].session_bytes
        if room_bytes < 0:
            break
        stay_open[index] = True
    total = sum(step.session_bytes for step, stays in zip(steps, stay_open, strict=True) if stays)
    bases = (
        step.alone_bytes + total - (step.session_bytes if stays else 0) for step, stays in zip(steps, stay_open, strict=True)
    )
    return OpenSessions(stay_open=tuple(stay_open), base_bytes=tuple(bases))


def closed_sessions(steps: Sequence[StepMemory]) -> OpenSessions:
    """Keep no session open."""
    return OpenSessions(stay_open=(False,) * len(steps), base_bytes=tuple(step.alone_bytes for step in steps))


def pin_highest_peaks(
    weights_bytes: Sequence[int],
    base_bytes: Sequence[int],
    budget_bytes: int,
    limit_bytes: int,
    reach: Sequence[float] = (),
) -> list[int]:
    """Return the bytes to pin of each step: whole steps, those with the highest base first, and a part of one more.

    Together they are at most ``limit_bytes``. Pinned weights raise the peak of every step but their own. With ``reach``, the
    part of all inferences that runs each step, those come first that run most often.
    """
    pinned = [0] * len(weights_bytes)
    order = sorted(range(len(pinned)), key=lambda index: (-reach[index] if reach else 0.0, -base_bytes[index], index))
    highest_after = [*itertools.accumulate((base_bytes[index] for index in reversed(order)), max, initial=0)][-2::-1]
    resident = highest_before = 0
    for index, after in zip(order, highest_after, strict=True):
        others = max(highest_before, after)
        room = min(budget_bytes - others, limit_bytes) - resident
        size = weights_bytes[index]
        part = max(0, min(size, room))
        pinned[index] = part if part >= size * _LEAST_PINNED_PART else 0
        resident += pinned[index]
        if pinned[index] < size:
            break
        highest_before = max(highest_before, base_bytes[index] - pinned[index])
    return pinned


def pin_in_order(weights_bytes: Sequence[int], base_bytes: Sequence[int], budget_bytes: int) -> list[int]:
    """Return the bytes to pin of each step: whole weights files, in the order of the steps, as far as every step fits."""
    pinned = []
    resident = highest_before = 0
    suffixes = itertools.accumulate(reversed(base_bytes), max, initial=0)
    highest_after = list(suffixes)[-2::-1]  # the highest base of the steps that follow each
    for size, base, after in zip(weights_bytes, base_bytes, highest_after, strict=True):
        others = max(highest_before, after)
        fits = resident + size + max(others, base - size) <= budget_bytes
        pinned.append(size if fits else 0)
        resident += pinned[-1]
        highest_before = max(highest_before, base - pinned[-1])
    return pinned


def read_ahead(
    weights_bytes: Sequence[int],
    base_bytes: Sequence[int],
    pinned_bytes: Sequence[int],
    budget_bytes: int,
    *,
    repeats: bool = True,
    unit_bytes: int = HUGE_PAGE_BYTES,
) -> list[int]:
    """Return how much of the next streamed step's weights has room during each step, and during all steps between.

    With ``repeats`` another inference follows the last step. A part of a step's weights is a whole number of units.
    """
    count, resident = len(weights_bytes), sum(pinned_bytes)
    ahead = [0] * count
    following = later = 0  # the next streamed step's bytes, and how many of them have room until it runs
    for turn in range((2 if repeats else 1) * count - 1, -1, -1):
        index, after = turn % count, (turn + 1) % count
        streamed = weights_bytes[after] - pinned_bytes[after] if repeats or after else 0
        following, later = (streamed, streamed) if streamed else (following, later)
        room = budget_bytes - base_bytes[index] - resident + pinned_bytes[index]
        later = max(0, min(later, room))
        ahead[index] = later if later == following else later // unit_bytes * unit_bytes
    streamed_steps = [index for index in range(count) if weights_bytes[index] > pinned_bytes[index]]
    if len(streamed_steps) == 1:  # it is read again only when it has run
        ahead[streamed_steps[0]] = 0
    return ahead


def held_back(
    weights_bytes: Sequence[int], pinned_bytes: Sequence[int], ahead_bytes: Sequence[int], exits: Iterable[int]
) -> list[int]:
    """Return how much is read ahead if nothing is before an inference stays at the ``exits``, indices of steps."""
    held = list(ahead_bytes)
    for place in exits:
        for index in range(place, -1, -1):
            held[index] = 0
            if weights_bytes[index] > pinned_bytes[index]:
                break  # what is read ahead before this step is its own
    return held


def alternating_residency(
    sessions: OpenSessions, pinned_bytes: Sequence[int], ahead_bytes: Sequence[int], *, slack_bytes: int = 0
) -> Residency:
    """Return the residency where streamed weights come and go: one step uses the memory that another does not need.

    ``slack_bytes`` are kept for partly used huge pages; without them the pages are small.
    """
    resident = sum(pinned_bytes) + slack_bytes
    peaks = [
        base + resident - pinned + ahead
        for base, pinned, ahead in zip(sessions.base_bytes, pinned_bytes, ahead_bytes, strict=True)
    ]
    return _residency(sessions, pinned_bytes, ahead_bytes, peaks, huge_pages=slack_bytes > 0)


def sub_bundle_residency(steps: Sequence[StepMemory], sessions_bytes: int, budget_bytes: int) -> Residency:
    """Return what stays in memory in a process that runs one of ``steps`` at a time, in an order that is not known.

    All sessions stay open, ``sessions_bytes`` together, if they fit next to the largest step; else none. Weights are pinned
    as far as there is room, and lie in huge pages where more is left. Nothing is read ahead.
    """
    all_stay = max(step.alone_bytes for step in steps) + sessions_bytes <= budget_bytes
    sessions = OpenSessions(
        stay_open=(all_stay,) * len(steps),
        base_bytes=tuple(step.alone_bytes + (sessions_bytes if all_stay else 0) for step in steps),
    )
    pinned = pin_in_order([step.weights_bytes for step in steps], sessions.base_bytes, budget_bytes)
    found = alternating_residency(sessions, pinned, [0] * len(steps))
    huge_pages = max(step.peak_bytes for step in found.steps) + HUGE_SLACK_BYTES <= budget_bytes
    return Residency(steps=found.steps, huge_pages=huge_pages)


def _residency(
    sessions: OpenSessions,
    pinned_bytes: Sequence[int],
    ahead_bytes: Sequence[int],
    peak_bytes: Sequence[int],
    *,
    huge_pages: bool,
) -> Residency:
    steps = tuple(
        StepResidency(pinned_bytes=pinned, ahead_bytes=ahead, session_stays_open=stays, peak_bytes=peak)
        for pinned, ahead, stays, peak in zip(pinned_bytes, ahead_bytes, sessions.stay_open, peak_bytes, strict=True)
    )
    return Residency(steps=steps, huge_pages=huge_pages)
