"""Lay out the arena, the memory in which the streamed weights of a bundle's steps take turns.

At most two steps' weights are in it at a time: those of the step that runs, and those of the next, which are being read.
They take turns at the arena's start and at its end. A step whose successor is not read ahead leaves its place to the
successor. So a step's weights always lie at the same address, and their pages are used again without the kernel clearing
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

#: Steps start at multiples of this, in the arena as in their files.
ALIGNMENT_BYTES = 1 << 16
#: Huge pages cause a five-hundredth of the page faults, and fewer TLB misses.
HUGE_PAGE_BYTES = 2 << 20
#: The most memory that two steps' weights leave unused in their last huge pages.
HUGE_SLACK_BYTES = 2 * HUGE_PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaLayout:
    """Where in the arena the weights of each streamed step start, in the order of the steps, and the arena's size."""

    starts: tuple[int, ...]
    nbytes: int


def arena_layout(sizes: Sequence[int], reads_ahead: Sequence[bool], *, huge_pages: bool) -> ArenaLayout:
    """Place the weights of steps, ``sizes`` bytes each, so that none overlaps its successor's while both are in memory.

    The steps form a circle: the first follows the last. A step ``reads_ahead`` when its successor's weights are read while
    it runs. Places start at multiples of `HUGE_PAGE_BYTES` with ``huge_pages``, else of `ALIGNMENT_BYTES`.
    """
    unit = HUGE_PAGE_BYTES if huge_pages else ALIGNMENT_BYTES
    rounded = [-(-size // unit) * unit for size in sizes]
    groups = _groups_sharing_a_place(reads_ahead)
    tops = [max(rounded[index] for index in group) for group in groups]
    if len(groups) < 2:
        return ArenaLayout(starts=(0,) * len(rounded), nbytes=max(rounded, default=0))
    neighbours = [a + b for a, b in zip(tops, [*tops[1:], tops[0]], strict=True)]
    is_odd = len(groups) % 2 == 1  # the last group has its neighbours at both ends, and lies between them
    nbytes = max(*neighbours, (tops[0] + tops[-1] + tops[-2]) if is_odd else 0)
    starts = [0] * len(rounded)
    for number, group in enumerate(groups):
        for index in group:
            starts[index] = nbytes - rounded[index] if number % 2 else 0
    if is_odd:
        for index in groups[-1]:
            starts[index] = tops[0]
    return ArenaLayout(starts=tuple(starts), nbytes=nbytes)


def arena_bytes(streamed_bytes: Sequence[int]) -> int:
    """Return the size of the arena, in huge pages, for steps that all read the next step's weights ahead.

    ``streamed_bytes`` are the steps' weights that are read for every inference; a step with none is left out.
    """
    sizes = [size for size in streamed_bytes if size]
    return arena_layout(sizes, [True] * len(sizes), huge_pages=True).nbytes


def uncovered_ranges(nbytes: int, covered: Sequence[tuple[int, int]], unit: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of ``0..nbytes`` outside of every (start, stop) in ``covered``, each stop rounded up to a ``unit``."""
    end = 0
    for start, stop in sorted((start, -(-stop // unit) * unit) for start, stop in covered):
        if end < start:
            yield end, start
        end = max(end, stop)
    if end < nbytes:
        yield end, nbytes


def common_ranges(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts that (start, stop) ranges have in common with others; no two of either overlap."""
    others = [*others]
    for start, stop in ranges:
        for first, last in others:
            if max(start, first) < min(stop, last):
                yield max(start, first), min(stop, last)


def _groups_sharing_a_place(reads_ahead: Sequence[bool]) -> list[list[int]]:
    """Divide the circle of steps after each one that reads ahead; the steps of a group take turns at one place.

    The group with the first step comes first.
    """
    count = len(reads_ahead)
    ends = [index for index in range(count) if reads_ahead[index]] if count > 1 else []
    if not ends:
        return [[*range(count)]] if count else []
    if len(ends) == 1:  # the last step of the only group, and its first, which must not overlap
        ends.append((ends[0] - 1) % count)
    ends.sort()
    bounds = zip([ends[-1] - count, *ends[:-1]], ends, strict=True)
    return [[index % count for index in range(end + 1, following + 1)] for end, following in bounds]
