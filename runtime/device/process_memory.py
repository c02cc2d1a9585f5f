"""Keep this process's memory small, and read what the kernel says of it.

Four things cost a process memory that its work does not need (measured with ``make bench``):

- glibc keeps one arena for each thread and raises its mmap threshold as blocks are freed, so that a released session's
  memory stays resident; fixed thresholds and one arena give it back at once. These tunables are read when a process starts,
  hence `restart_lean`; `lean` sets the same in a running process. With huge pages a large activation costs few page faults,
  which were a tenth of VGG16's time. But glibc then keeps up to 2 MB more of its heap, and peaks vary by 4 MB from run to
  run instead of 0.4: only plans with room for that use them.
- onnxruntime's wheels (1.31, and some before) send telemetry about what they run: that takes a thread, 3 MB, a database in
  ``~/.cache/Microsoft`` and a temporary file (https://github.com/microsoft/onnxruntime/pull/27379).
- numpy's OpenBLAS starts a thread and a buffer for each core, which nothing here uses.
- Pages of library code stay resident after they ran once; most of onnxruntime's run only while a session is opened.
  `CodePages.release` gives them back: they are clean pages of files, and come back from the page cache when needed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hyps.runtime.signals import block_signals

#: The environment that keeps a process of ours small; it is read when the process starts.
LEAN_ENVIRONMENT: Mapping[str, str] = {
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "HYPS_LEAN": "1",
}
#: The first lines of a Python program that is to be killed before others when memory runs out (Linux, proc(5)).
FIRST_TO_GO = """\
import contextlib
with contextlib.suppress(OSError), open('/proc/self/oom_score_adj', 'w') as score:
    score.write('1000')
"""
_HUGE_PAGES = ":glibc.malloc.hugetlb=1"
#: The memory that glibc keeps in addition with huge pages.
HUGE_HEAP_BYTES = 4_000_000
_MADV_DONTNEED, _MADV_DONTDUMP = 4, 16
_PAGE = resource.getpagesize()
_MAP_FIXED = 16
#: The pages of a library that are mapped together when one of them is touched, and the libraries for which that matters.
_MAPPED_BYTES, _LARGE_BYTES = max(16_384, resource.getpagesize()), 1 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A process's resident bytes: the peak since it started (VmHWM), and the present ones, anonymous and file-backed."""

    peak_bytes: int
    anonymous_bytes: int
    file_bytes: int

    @property
    def resident_bytes(self) -> int:
        """The bytes that are resident now."""
        return self.anonymous_bytes + self.file_bytes


def restart_lean(*, huge_pages: bool = False) -> None:
    """Run this program again in the same process with an environment that keeps it small; return if it already has that.

    With ``huge_pages`` glibc asks the system for huge pages for what it maps. Call this first: before numpy and onnxruntime
    are imported and before standard input is read.
    """
    if sys.platform == "linux" and os.environ.get("HYPS_LEAN") != "1":  # set by us: never a second time
        environment = {**os.environ, **LEAN_ENVIRONMENT}
        if huge_pages:
            environment["GLIBC_TUNABLES"] += _HUGE_PAGES
        block_signals()  # ctrl-C meanwhile takes effect after the restart
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def keep_lean() -> None:
    """Make glibc give memory back at once from now on, in a process that another program started (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 131_072), (_TRIM_THRESHOLD, 131_072)):
            mallopt(parameter, value)


def lean() -> None:
    """Keep the process of a program small, as ``hyps-run`` keeps its own; call it first, before numpy is imported.

    glibc then gives memory back at once, with one arena for all threads; numpy's OpenBLAS starts no threads, and onnxruntime
    sends no telemetry. Environment variables that are set already, ``OPENBLAS_NUM_THREADS`` for example, stay as they are.
    Called after numpy and onnxruntime were imported it does less, but no harm.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, LEAN_ENVIRONMENT[name])
    keep_lean()


def give_back_heap() -> None:
    """Give free memory of the heap back to the kernel (malloc_trim(3)); do nothing where the C library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def memory() -> Memory:
    """Return this process's memory (from ``/proc/self/status``; elsewhere only the peak is known)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return Memory(peak_bytes=peak, anonymous_bytes=peak, file_bytes=0)
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = (int(fields[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon", "RssFile", "RssShmem"))
    peak, anonymous, file, shared = found  # a mapped file in a tmpfs counts as shared memory
    return Memory(peak_bytes=peak, anonymous_bytes=anonymous, file_bytes=file + shared)


def forget_peak() -> bool:
    """Start the peak of this process anew (proc(5), ``clear_refs``); return False where the kernel cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def storage_bytes_read() -> int:
    """Return the bytes that the kernel has read from storage for this process; 0 where that is unknown."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def page_faults() -> tuple[int, int]:
    """Return how often this process met a page without memory so far: minor faults, and major ones, which read storage."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt


def lock_pages(address: int, nbytes: int) -> None:
    """Keep pages from being swapped out, as far as the limit on locked memory allows."""
    mlock = getattr(ctypes.CDLL(None), "mlock", None)
    if mlock is not None:
        _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
        mlock(ctypes.c_void_p(address), ctypes.c_size_t(nbytes))


def give_back_pages(start: int, stop: int) -> None:
    """Give the pages that lie wholly within these addresses of private memory back to the kernel (madvise(2))."""
    start, stop = -(-start // _PAGE) * _PAGE, stop // _PAGE * _PAGE
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None and start < stop:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_DONTNEED)


def map_file(address: int, nbytes: int, file: int = -1, offset: int = 0) -> None:
    """Replace the mapping of ``nbytes`` at an address by a private one of an open file, from ``offset`` on (mmap(2)).

    Without a file the new mapping is anonymous. Addresses and offsets are multiples of the page size. Raises `OSError` where
    the kernel cannot map the file.
    """
    flags = mmap.MAP_PRIVATE | _MAP_FIXED | getattr(mmap, "MAP_NORESERVE", 0) | (mmap.MAP_ANONYMOUS if file < 0 else 0)
    if _mmap()(address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, offset) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _mmap() -> Callable[[int, int, int, int, int, int], int | None]:
    """Return the C library's mmap. Python's own chooses the address, and keeps a descriptor of the file for each mapping."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    function.restype, function.argtypes = address, (address, size, number, number, number, ctypes.c_ssize_t)
    return cast("Callable[[int, int, int, int, int, int], int | None]", function)


class CodePages:
    """The pages of code and constants of the libraries that are loaded when this is made."""

    def __init__(self) -> None:
        self._ranges = _code_ranges()
        self._madvise = getattr(ctypes.CDLL(None), "madvise", None)

    def release(self) -> None:
        """Give the resident pages back to the page cache; do nothing where the kernel is not Linux."""
        for start, length in self._ranges:
            self._advise(start, length, _MADV_DONTNEED)

    def map_singly(self) -> None:
        """Have the kernel map few pages with each page of a large library that is touched.

        When a page of a file is touched, Linux maps up to 16 of its neighbours that are in the page cache, but none beyond
        the mapping's borders. Here every other `_MAPPED_BYTES` are left out of core dumps, which makes each a mapping by
        itself. 35 MB of onnxruntime become 2,100 mappings, half a megabyte in the kernel.
        """
        for start, length in self._ranges:
            if length >= _LARGE_BYTES:
                for first in range(start, start + length, 2 * _MAPPED_BYTES):
                    self._advise(first, min(_MAPPED_BYTES, start + length - first), _MADV_DONTDUMP)

    def _advise(self, start: int, length: int, advice: int) -> None:
        if self._madvise is not None:
            self._madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)


#: The read-only mappings of files when ranges were scanned last, and those ranges.
_last_scan: list[tuple[list[tuple[int, int, str]], list[tuple[int, int]]]] = []


def _code_ranges() -> list[tuple[int, int]]:
    """Return (address, bytes) of every read-only mapping of a file of which no page was written. Neighbours are one range.

    Whether a page was written is in ``/proc/self/smaps``, and reading that takes 20 ms where code is mapped singly. So it is
    read only where other files are mapped, or in other places, than at the last call.
    """
    mappings = _read_only_mappings()
    if not _last_scan or mappings != _last_scan[0][0]:
        _last_scan[:] = [(mappings, _scanned_ranges())]
    return _last_scan[0][1]


def _read_only_mappings() -> list[tuple[int, int, str]]:
    """Return the first address, the end and the file of every read-only mapping, neighbours of a file as one."""
    found: list[tuple[int, int, str]] = []
    with suppress(OSError), Path("/proc/self/maps").open() as lines:
        for line in lines:
            place = line.find("/")
            if place < 0 or line[line.index(" ") + 1 :][:4] not in ("r-xp", "r--p"):
                continue
            start, stop = (int(address, 16) for address in line[: line.index(" ")].split("-"))
            if found and found[-1][1:] == (start, line[place:]):
                start = found.pop()[0]
            found.append((start, stop, line[place:]))
    return found


def _scanned_ranges() -> list[tuple[int, int]]:
    """Read the ranges, line by line: there may be thousands of mappings, of 25 lines each."""
    ranges: list[tuple[int, int]] = []
    start = length = 0
    with suppress(OSError), Path("/proc/self/smaps").open() as lines:
        for line in lines:
            if not line[0].isupper():  # the line of a mapping, after which those of its fields begin with capitals
                fields = line.split()
                first, last = (int(address, 16) for address in fields[0].split("-"))
                of_file = fields[1] in ("r-xp", "r--p") and len(fields) > 5 and fields[5].startswith("/")
                start, length = (first, last - first) if of_file else (0, 0)
            elif length and line.startswith("Anonymous:") and line.split()[1] == "0":
                if ranges and sum(ranges[-1]) == start:
                    start, length = ranges[-1][0], ranges.pop()[1] + length
                ranges.append((start, length))
    return ranges
