"""Where each step's weights lie in memory: buffers of our own, so that what is resident is known to the byte.

A step whose weights stay resident has a buffer to itself. All others share one *arena*: as only two of them are there at a
time, the one that runs and the next, which is being read, they take turns at its start and at its end; where the next is
not read before the one that runs has left, it takes its place. So a step's weights always lie at the same address, and pages
are used again without the kernel clearing them.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hyps.runtime.device.process_memory import lock_pages

#: Steps start at multiples of this, in the arena as in their files.
ALIGNMENT_BYTES = 1 << 16
#: Huge pages cost a five-hundredth of the page faults, and the processor misses fewer of them in its cache.
HUGE_PAGE_BYTES = 2 << 20


class WeightBuffer:
    """Anonymous private memory that takes no page before it is written to; nothing evicts it but swap.

    With ``huge`` pages it starts at a multiple of `HUGE_PAGE_BYTES`; what does not fill the last is in small pages.
    """

    def __init__(self, nbytes: int, *, huge: bool) -> None:
        self.nbytes = nbytes
        huge = huge and hasattr(mmap, "MADV_HUGEPAGE")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, nbytes + (HUGE_PAGE_BYTES if huge else 0), flags=flags)
        self._first = -ctypes.addressof(ctypes.c_char.from_buffer(self._map)) % HUGE_PAGE_BYTES if huge else 0
        filled = nbytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # where the kernel gives huge pages unasked, the last would be one, too
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_NOHUGEPAGE)
        if huge and filled:
            self._map.madvise(mmap.MADV_HUGEPAGE, self._first, filled)
        self.view = memoryview(self._map)[self._first : self._first + nbytes]

    def lock(self, nbytes: int) -> None:
        """Keep the first ``nbytes`` from being swapped out, as far as the system's limits on locked memory allow."""
        lock_pages(ctypes.addressof(ctypes.c_char.from_buffer(self.view)), nbytes)

    def release(self, start: int, stop: int) -> None:
        """Give the pages wholly within ``start..stop`` back to the kernel; they read as zeros from then on."""
        start = -(-(self._first + start) // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (self._first + stop) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferLayout:
    """Where in the arena each streamed step's weights start, in the order of the steps, and how long the arena is."""

    starts: tuple[int, ...]
    nbytes: int


def buffer_layout(sizes: Sequence[int], beside: Sequence[bool], *, huge: bool) -> BufferLayout:
    """Place steps of these weight bytes so that no step overlaps the next, in a circle, where it is there ``beside`` it.

    They start at multiples of `HUGE_PAGE_BYTES` when pages are ``huge``, else of `ALIGNMENT_BYTES`.
    """
    unit = HUGE_PAGE_BYTES if huge else ALIGNMENT_BYTES
    rounded = [-(-size // unit) * unit for size in sizes]
    runs = _runs(beside)
    tops = [max(rounded[index] for index in run) for run in runs]
    if len(runs) < 2:
        return BufferLayout(starts=(0,) * len(rounded), nbytes=max(rounded, default=0))
    neighbours = [a + b for a, b in zip(tops, [*tops[1:], tops[0]], strict=True)]
    between = len(runs) % 2 == 1  # the last one is a neighbour of two that lie at the ends
    nbytes = max(*neighbours, (tops[0] + tops[-1] + tops[-2]) if between else 0)
    starts = [0] * len(rounded)
    for number, run in enumerate(runs):
        for index in run:
            starts[index] = nbytes - rounded[index] if number % 2 else 0
    if between:
        for index in runs[-1]:
            starts[index] = tops[0]
    return BufferLayout(starts=tuple(starts), nbytes=nbytes)


def _runs(beside: Sequence[bool]) -> list[list[int]]:
    """The steps in a circle, parted behind each that is there beside the next: those of a run can share one place."""
    count = len(beside)
    ends = [index for index in range(count) if beside[index]] if count > 1 else []
    if not ends:
        return [[*range(count)]] if count else []
    if len(ends) == 1:  # the last and the first of its only run
        ends.append((ends[0] - 1) % count)
    ends.sort()
    bounds = zip(ends, [*ends[1:], ends[0] + count], strict=True)
    return [[index % count for index in range(end + 1, following + 1)] for end, following in bounds]


def gaps(nbytes: int, kept: Sequence[tuple[int, int]], unit: int) -> Iterator[tuple[int, int]]:
    """What of ``0..nbytes`` lies outside of every (start, stop) in ``kept``, whose ends are rounded up to a ``unit``."""
    end = 0
    for start, stop in sorted((start, -(-stop // unit) * unit) for start, stop in kept):
        if end < start:
            yield end, start
        end = max(end, stop)
    if end < nbytes:
        yield end, nbytes
