"""What of the weights stays in memory, and how much of the next step's is read while a step runs, within the budget.

With more budget than the largest step needs, the rest goes, in this order, to sessions that stay open (opening costs time
for a few kilobytes each), to reading ahead (one step's worth of bytes helps at every step) as far as computing leaves time
to read, and to *pinned* weights: a byte pinned is a byte less to read for every inference.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyps.passes.device import Device

#: Bytes read ahead are whole huge pages.
AHEAD_STEP_BYTES = 2 << 20
#: Pinned weights are tried in shares of one in so many, which bounds what of the budget is left unused.
PINNED_SHARES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """What one step needs: the process peak by itself, its weights file, what its open session holds, and seconds.

    ``session_bytes`` and ``weights_bytes`` are part of ``alone_bytes``.
    """

    alone_bytes: int
    weights_bytes: int
    session_bytes: int
    compute_s: float


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

    ``cost_s`` is what plans are compared by: these seconds, and those when the system's file cache holds all weights.
    """

    steps: tuple[Residence, ...]
    latency_s: float
    cost_s: float


def residences(needs: Iterable[StepNeeds], budget_bytes: int, device: Device) -> Residences:
    """Fill the budget; see the module. The shares of pinned weights and of reading ahead are those that take least time."""
    needs = tuple(needs)
    kept = _kept(needs, budget_bytes)
    sessions = sum(need.session_bytes for need, keep in zip(needs, kept, strict=True) if keep)
    bases = [
        need.alone_bytes + sessions - (need.session_bytes if keep else 0) for need, keep in zip(needs, kept, strict=True)
    ]
    total = sum(need.weights_bytes for need in needs)
    shares = sorted({total * share // PINNED_SHARES for share in range(PINNED_SHARES + 1)}, reverse=True)
    plans = []
    for share in shares:
        pinned = _pinned(needs, bases, budget_bytes, share)
        ahead = _ahead(needs, bases, pinned, budget_bytes)
        cold_s = _latency(needs, pinned, ahead, kept, device.storage_bytes_per_s, device.step_s)
        cached_s = _latency(needs, pinned, ahead, kept, device.memory_bytes_per_s, device.step_s)
        plans.append((cold_s + cached_s, cold_s, pinned, ahead))
    cost, latency, pinned, ahead = min(plans, key=lambda plan: plan[0])
    resident = sum(pinned)
    steps = tuple(
        Residence(pinned_bytes=p, ahead_bytes=a, kept=keep, peak_bytes=base + resident - p + a)
        for p, a, keep, base in zip(pinned, ahead, kept, bases, strict=True)
    )
    return Residences(steps=steps, latency_s=latency, cost_s=cost)


def _kept(needs: Sequence[StepNeeds], budget_bytes: int) -> list[bool]:
    """The sessions that stay open: the smallest first, as far as they fit beside the largest step."""
    room = budget_bytes - max(need.alone_bytes for need in needs)
    kept = [False] * len(needs)
    for index in sorted(range(len(needs)), key=lambda index: needs[index].session_bytes):
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


def _latency(
    needs: Sequence[StepNeeds],
    pinned: Sequence[int],
    ahead: Sequence[int],
    kept: Sequence[bool],
    read_bytes_per_s: float,
    step_s: float,
) -> float:
    """Estimated seconds of an inference that follows another: reading beside computing, then what is left to read."""
    seconds, read = 0.0, 0.0
    streamed = [need.weights_bytes - pin for need, pin in zip(needs, pinned, strict=True)]
    for turn in range(2 * len(needs)):
        index = turn % len(needs)
        if turn == len(needs):
            seconds = 0.0
        if streamed[index]:
            seconds += max(0.0, streamed[index] - read) / read_bytes_per_s
            read = 0.0
        spent = needs[index].compute_s + (0.0 if kept[index] else step_s)
        read = min(float(ahead[index]), read + spent * read_bytes_per_s)
        seconds += spent
    return seconds
