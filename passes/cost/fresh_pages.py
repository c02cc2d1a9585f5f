"""Predict how many bytes of each step's weights are read into *fresh* pages, which the kernel must find and clear first.

Reading a cached file into pages that the process has already takes a fifth of the time. The runtime reads streamed weights
into an arena (`hyps.runtime.bundle.weight_arena`). What neither the running step nor the next one needs stays there as far
as the predicted peak allows. The rest of these pages move to where the next weights are read, or are given back
(`hyps.runtime.execution.weight_residency`). This module follows the arena's pages through one inference after another. A
step that is pinned in part has a buffer of its own, whose other pages are given back at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.bundle.residency import Residency
from hyps.runtime.bundle.weight_arena import ALIGNMENT_BYTES, arena_layout


def fresh_weight_bytes(weights_bytes: Sequence[int], residency: Residency) -> list[int]:
    """Return, for each step, how many bytes of its weights are read into fresh pages in an inference that follows another.

    ``weights_bytes`` are the sizes of the steps' files.
    """
    steps = residency.steps
    most_bytes = max((step.peak_bytes for step in steps), default=0)
    streamed = [size - step.pinned_bytes for size, step in zip(weights_bytes, steps, strict=True)]
    fresh = [left if step.pinned_bytes else 0 for left, step in zip(streamed, steps, strict=True)]
    shared = [index for index, size in enumerate(weights_bytes) if size and not steps[index].pinned_bytes]
    layout = arena_layout(
        [weights_bytes[index] for index in shared],
        [steps[index].ahead_bytes > 0 for index in shared],
        huge_pages=residency.huge_pages,
    )
    if residency.steady:
        return fresh
    starts = dict(zip(shared, layout.starts, strict=True))
    places = [_pages(starts[index], size) if index in starts else 0 for index, size in enumerate(weights_bytes)]
    following = _next_streamed(streamed)
    aheads = [
        _pages(starts[after], min(step.ahead_bytes, streamed[after])) if after in starts else 0
        for step, after in zip(steps, following, strict=True)
    ]
    resident = 0
    circle = [*zip(range(len(steps)), steps, places, aheads, following, strict=True)]
    for is_second in (False, True):
        for index, step, own, ahead, after in circle:
            kept = own | ahead
            unused, missing = resident & ~kept, kept & ~resident
            excess_bytes = step.peak_bytes + unused.bit_count() * ALIGNMENT_BYTES - most_bytes
            taken = _lowest(unused, -(-max(0, excess_bytes) // ALIGNMENT_BYTES))
            cleared = _lowest(missing, max(0, missing.bit_count() - taken.bit_count()))
            if is_second:  # the first inference brings the arena to the state in which each leaves it
                fresh[index] += (cleared & own).bit_count() * ALIGNMENT_BYTES
                if ahead:
                    fresh[after] += (cleared & ahead).bit_count() * ALIGNMENT_BYTES
            resident = kept | unused & ~taken
    return [min(each, size) for each, size in zip(fresh, streamed, strict=True)]


def _pages(start: int, nbytes: int) -> int:
    """Return a range of the arena as bits, one for each `ALIGNMENT_BYTES`."""
    return ((1 << -(-nbytes // ALIGNMENT_BYTES)) - 1) << start // ALIGNMENT_BYTES


def _lowest(pages: int, count: int) -> int:
    """Return the lowest ``count`` of some pages, or all if they are fewer."""
    if count >= pages.bit_count():
        return pages
    low, high = 0, pages.bit_length()
    while low < high:
        middle = (low + high) // 2
        if (pages & ((1 << middle) - 1)).bit_count() < count:
            low = middle + 1
        else:
            high = middle
    return pages & ((1 << low) - 1)


def _next_streamed(streamed_bytes: Sequence[int]) -> list[int]:
    """Return, for each step, the next other one with weights to read, in a circle; -1 where there is none."""
    count, after = len(streamed_bytes), -1
    found = [-1] * count
    for turn in range(2 * count - 1, -1, -1):
        index = turn % count
        found[index] = after if after != index else -1
        after = index if streamed_bytes[index] else after
    return found
