"""Hold weights in buffers of our own, so that their resident size is known to the byte.

A step with pinned weights has a buffer to itself. All other steps share one buffer, the arena
(`hyps.runtime.bundle.weight_arena`).
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

from hyps.runtime.bundle.weight_arena import HUGE_PAGE_BYTES
from hyps.runtime.device.process_memory import lock_pages, move_pages


class WeightBuffer:
    """Anonymous private memory that takes no page before it is written to; only swap can evict it.

    With ``huge`` pages it starts at a multiple of `HUGE_PAGE_BYTES`; what does not fill the last huge page is in small ones.
    """

    def __init__(self, nbytes: int, *, huge: bool) -> None:
        self.nbytes = nbytes
        huge = huge and hasattr(mmap, "MADV_HUGEPAGE")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, nbytes + (HUGE_PAGE_BYTES if huge else 0), flags=flags)
        self._first = -ctypes.addressof(ctypes.c_char.from_buffer(self._map)) % HUGE_PAGE_BYTES if huge else 0
        filled = nbytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # else a kernel that gives huge pages unasked makes the last one huge, too
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_NOHUGEPAGE)
        if huge and filled:
            self._map.madvise(mmap.MADV_HUGEPAGE, self._first, filled)
        self.view = memoryview(self._map)[self._first : self._first + nbytes]

    def lock(self, nbytes: int) -> None:
        """Keep the first ``nbytes`` from being swapped out, as far as the system's limits on locked memory allow."""
        lock_pages(ctypes.addressof(ctypes.c_char.from_buffer(self.view)), nbytes)

    def release(self, start: int, stop: int) -> None:
        """Give the pages that lie wholly within ``start..stop`` back to the kernel; from then on they read as zeros."""
        start = -(-(self._first + start) // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (self._first + stop) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def move(self, start: int, target: int, nbytes: int) -> None:
        """Take the pages of ``start`` for ``target``, which loses its own; the kernel need not clear others for it.

        Positions are multiples of the page size, and the two ranges do not overlap. What the pages hold moves with them,
        and ``start`` reads as zeros from then on. Where the kernel cannot move pages, those of ``start`` are given back.
        """
        first = ctypes.addressof(ctypes.c_char.from_buffer(self.view))
        if not move_pages(first + start, first + target, nbytes):
            self.release(start, start + nbytes)
