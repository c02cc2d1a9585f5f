"""No two neighbours in the schedule overlap in the arena, and the planner knows the arena's size."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.bundle.weight_arena import (
    ALIGNMENT_BYTES,
    HUGE_PAGE_BYTES,
    arena_bytes,
    arena_layout,
    uncovered_ranges,
)

MB = 1 << 20


@given(
    steps=st.lists(st.tuples(st.integers(1, 50 * MB), st.booleans()), max_size=9),
    huge=st.booleans(),
)
def test_neighbours_that_are_in_memory_together_do_not_overlap(steps: list[tuple[int, bool]], huge: bool) -> None:
    """Nor do the last and the first, where one is read while the other runs; others may share their place."""
    sizes, reads_ahead = [size for size, _ in steps], [together for _, together in steps]
    layout = arena_layout(sizes, reads_ahead, huge_pages=huge)
    unit = HUGE_PAGE_BYTES if huge else ALIGNMENT_BYTES
    ranges = [(start, start + size) for start, size in zip(layout.starts, sizes, strict=True)]
    assert all(start >= 0 and stop <= layout.nbytes and start % unit == 0 for start, stop in ranges)
    pairs = list(itertools.pairwise([*ranges, *ranges[:1]])) if len(ranges) > 1 else []
    assert all(a[1] <= b[0] or b[1] <= a[0] for (a, b), together in zip(pairs, reads_ahead, strict=False) if together)
    assert layout.nbytes <= sum(sorted(sizes)[-3:]) + 3 * unit


def test_a_step_that_reads_nothing_ahead_leaves_its_place_to_the_next() -> None:
    """So that the pages of one serve the other."""
    assert arena_layout([3 * MB, 2 * MB, 3 * MB, MB], [False, False, True, False], huge_pages=False).nbytes == 6 * MB
    assert arena_layout([3 * MB, 2 * MB, 3 * MB], [False] * 3, huge_pages=False).nbytes == 3 * MB


@given(sizes=st.lists(st.integers(1, 50 * MB), min_size=2, max_size=8).filter(lambda sizes: len(sizes) % 2 == 0))
def test_an_even_number_of_steps_needs_no_more_than_its_largest_pair(sizes: list[int]) -> None:
    largest = max(a + b for a, b in itertools.pairwise([*sizes, sizes[0]]))
    assert arena_layout(sizes, [True] * len(sizes), huge_pages=False).nbytes <= largest + 2 * ALIGNMENT_BYTES


def test_an_odd_step_out_lies_between_its_neighbours() -> None:
    """That is the last one: in a circle of five it has the first and the fourth for neighbours."""
    sizes = [2 * MB, 20 * MB, 2 * MB, 4 * MB, 6 * MB]
    assert arena_bytes(sizes) == max(22 * MB, (2 + 6 + 4) * MB)
    sizes = [10 * MB, 2 * MB, 2 * MB, 10 * MB, 6 * MB]
    assert arena_bytes(sizes) == (10 + 6 + 10) * MB
    assert arena_layout(sizes, [True] * 5, huge_pages=True).starts == (0, 24 * MB, 0, 16 * MB, 10 * MB)


def test_steps_without_streamed_weights_have_no_place_in_the_arena() -> None:
    assert arena_bytes([0, 0]) == 0
    assert arena_bytes([0, 3 * MB, 0]) == 4 * MB
    assert arena_bytes([3 * MB, 0, 5 * MB]) == arena_bytes([3 * MB, 5 * MB]) == 10 * MB


@given(
    nbytes=st.integers(0, 100),
    covered=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted).map(tuple), max_size=4),
    unit=st.sampled_from([1, 7]),
)
def test_uncovered_ranges(nbytes: int, covered: list[tuple[int, int]], unit: int) -> None:
    covered = [(min(start, nbytes), min(stop, nbytes)) for start, stop in covered]
    left = {byte for start, stop in uncovered_ranges(nbytes, covered, unit) for byte in range(start, stop)}
    rounded = [(start, -(-stop // unit) * unit) for start, stop in covered]
    assert left == set(range(nbytes)) - {byte for start, stop in rounded for byte in range(start, stop)}
