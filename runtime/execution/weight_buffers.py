"""Hold a step's weights in memory of our own, so that their resident size is known to the byte.

Pinned weights are anonymous memory, which only swap can evict. Streamed ones are a private mapping of their file: their
pages are the file cache's, so that nothing is copied, no page is cleared, and no byte is in memory twice.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from contextlib import suppress

from hyps.runtime.bundle.pages import HUGE_PAGE_BYTES
from hyps.runtime.device.process_memory import lock_pages, map_file

#: madvise(2): bring pages into memory, and fail where storage cannot; since Linux 5.14.
_POPULATE_READ = 22


class WeightBuffer:
    """Private memory for ``nbytes`` of weights, none of whose pages is resident before it is needed.

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
        lock_pages(self._address, nbytes)

    def map_file(self, file: int, start: int) -> None:
        """Make everything from ``start`` on, a multiple of the page size, a mapping of the same bytes of an open file.

        Raises `OSError` where the kernel cannot; the memory is then anonymous as before.
        """
        address, nbytes = self._address + start, self.nbytes - start
        try:
            map_file(address, nbytes, file, start)
        except OSError:
            map_file(address, nbytes)  # the kernel may have taken the old mapping away already
            raise
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            self._map.madvise(mmap.MADV_SEQUENTIAL, self._first + start, self.nbytes - start)

    def populate(self, start: int, stop: int) -> None:
        """Bring the mapped bytes ``start..stop`` into memory. Raises `OSError` where the file has become shorter."""
        first = (self._first + start) // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError):  # let storage read on meanwhile
            self._map.madvise(mmap.MADV_WILLNEED, first, min(2 * (stop - start), self.nbytes - start))
        try:
            self._map.madvise(_POPULATE_READ, first, self._first + stop - first)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.view[start : stop : mmap.PAGESIZE].tobytes()  # an older kernel: read a byte of every page

    def release(self, start: int) -> None:
        """Give the pages that lie wholly behind ``start`` back to the kernel."""
        start = -(-(self._first + start) // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = -(-(self._first + self.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    @property
    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.view))
