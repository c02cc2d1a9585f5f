"""Two neighbours in the schedule never lie over each other, and what is given back is gone."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.device.process_memory import memory
from hyps.runtime.execution.weight_buffers import ALIGNMENT_BYTES, HUGE_PAGE_BYTES, WeightBuffer, buffer_layout, gaps

MB = 1 << 20


@given(
    steps=st.lists(st.tuples(st.integers(1, 50 * MB), st.booleans()), max_size=9),
    huge=st.booleans(),
)
def test_neighbours_that_are_there_together_do_not_overlap(steps: list[tuple[int, bool]], huge: bool) -> None:
    """Nor do the last and the first, where the one is read while the other runs; others may share their place."""
    sizes, beside = [size for size, _ in steps], [together for _, together in steps]
    placed = buffer_layout(sizes, beside, huge=huge)
    unit = HUGE_PAGE_BYTES if huge else ALIGNMENT_BYTES
    ranges = [(start, start + size) for start, size in zip(placed.starts, sizes, strict=True)]
    assert all(start >= 0 and stop <= placed.nbytes and start % unit == 0 for start, stop in ranges)
    pairs = list(itertools.pairwise([*ranges, *ranges[:1]])) if len(ranges) > 1 else []
    assert all(a[1] <= b[0] or b[1] <= a[0] for (a, b), together in zip(pairs, beside, strict=False) if together)
    assert placed.nbytes <= sum(sorted(sizes)[-3:]) + 3 * unit


def test_steps_whose_next_is_not_read_ahead_share_its_place() -> None:
    """So that the pages of one serve the other."""
    assert buffer_layout([3 * MB, 2 * MB, 3 * MB, MB], [False, False, True, False], huge=False).nbytes == 6 * MB
    assert buffer_layout([3 * MB, 2 * MB, 3 * MB], [False] * 3, huge=False).nbytes == 3 * MB


@given(sizes=st.lists(st.integers(1, 50 * MB), min_size=2, max_size=8).filter(lambda sizes: len(sizes) % 2 == 0))
def test_an_even_number_of_steps_needs_no_more_than_its_largest_pair(sizes: list[int]) -> None:
    largest = max(a + b for a, b in itertools.pairwise([*sizes, sizes[0]]))
    assert buffer_layout(sizes, [True] * len(sizes), huge=False).nbytes <= largest + 2 * ALIGNMENT_BYTES


@given(
    nbytes=st.integers(0, 100),
    kept=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted).map(tuple), max_size=4),
    unit=st.sampled_from([1, 7]),
)
def test_gaps_are_what_nothing_keeps(nbytes: int, kept: list[tuple[int, int]], unit: int) -> None:
    kept = [(min(start, nbytes), min(stop, nbytes)) for start, stop in kept]
    left = {byte for start, stop in gaps(nbytes, kept, unit) for byte in range(start, stop)}
    rounded = [(start, -(-stop // unit) * unit) for start, stop in kept]
    assert left == set(range(nbytes)) - {byte for start, stop in rounded for byte in range(start, stop)}


@pytest.mark.own_process
@pytest.mark.parametrize("huge", [True, False])
@pytest.mark.parametrize("nbytes", [3 * MB, 40 * MB])
def test_a_buffer_takes_pages_when_written_and_gives_them_back(nbytes: int, huge: bool) -> None:
    before = memory().anonymous_bytes
    buffer = WeightBuffer(nbytes, huge=huge)
    assert memory().anonymous_bytes - before < MB
    buffer.view[:] = b"\x01" * nbytes
    full = memory().anonymous_bytes - before
    assert nbytes <= full < nbytes + 4 * MB
    buffer.release(MB, nbytes)
    assert memory().anonymous_bytes - before < 4.5 * MB
    assert buffer.view[MB - 1] == 1
    assert buffer.view[MB] == buffer.view[nbytes - 1] == 0
    buffer.lock(MB)  # does nothing where it is not allowed


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages")
@pytest.mark.parametrize("huge", [True, False])
def test_a_kernel_that_gives_huge_pages_unasked_gives_none_beyond_what_is_used(huge: bool) -> None:
    """As Debian's does. What the kernel may do with a mapping is in its flags: ``hg``, huge pages; ``nh``, none."""
    buffer = WeightBuffer(3 * MB, huge=huge)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer.view))
    first, last = flags_of(address), flags_of(address + 3 * MB - 1)
    assert ("hg" in first, "nh" in first) == (huge, not huge)
    assert "nh" in last


def flags_of(address: int) -> list[str]:
    """The flags of the mapping with this address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if inside and words[0] == "VmFlags:":
            return words[1:]
        if not words[0].endswith(":"):
            start, stop = (int(each, 16) for each in words[0].split("-"))
            inside = start <= address < stop
    raise AssertionError(f"nothing is mapped at {address:x}")
