"""The receptive field of rows equals what walking the window tap by tap reads; tiles cover the rows once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.passes.receptive_field import Rows, SlidingWindow
from hyps.passes.tiling.tiles import hull, tile_rows


@st.composite
def windows(draw: st.DrawFn, *, dense: bool = False) -> tuple[SlidingWindow, int, Rows]:
    """Draw a window, an input's height, and rows of the output; ``dense`` windows leave no row of the input out."""
    kernel = draw(st.integers(1, 5))
    pad = st.integers(0, kernel - 1)
    window = SlidingWindow(
        taps=kernel,
        stride=draw(st.integers(1, kernel if dense else 4)),
        dilation=1 if dense else draw(st.integers(1, 3)),
        pads=(draw(pad), draw(pad)),
        max_pad=kernel - 1,
    )
    height = draw(st.integers((kernel - 1) * window.dilation + 1, 30))
    rows = window.output_height(height)
    start = draw(st.integers(0, rows - 1))
    return window, height, (start, draw(st.integers(start + 1, rows)))


def taps(window: SlidingWindow, height: int, pads: Rows, row: int, first: int = 0) -> list[int | None]:
    """Return what one row of the output reads: rows of the input, counted from ``first``, and None for padding."""
    seen: list[int | None] = []
    for tap in range(window.taps):
        at = row * window.stride + tap * window.dilation - pads[0]
        assert -pads[0] <= at < height + pads[1], "beyond the padding"
        seen.append(at + first if 0 <= at < height else None)
    return seen


@given(windows())
def test_a_tile_reads_what_the_whole_does(drawn: tuple[SlidingWindow, int, Rows]) -> None:
    window, height, rows = drawn
    whole = [taps(window, height, window.pads, row) for row in range(*rows)]
    source = window.input_rows(rows, height)
    if source is None:
        read = [row for seen in whole for row in seen if row is not None]
        pads = max(rows[0] * -window.stride + window.pads[0], 0), window.pads[1]
        assert not read or max(pads) >= window.taps or window.dilation > 1
        return
    start, stop = source.rows
    tile = replace(window, pads=source.pads)
    assert tile.output_height(stop - start) == rows[1] - rows[0]
    assert [taps(tile, stop - start, source.pads, row, start) for row in range(rows[1] - rows[0])] == whole


@given(windows(dense=True))
def test_no_row_is_read_in_vain(drawn: tuple[SlidingWindow, int, Rows]) -> None:
    window, height, rows = drawn
    source = window.input_rows(rows, height)
    assert source
    seen = {tap for row in range(*rows) for tap in taps(window, height, window.pads, row)}
    assert set(range(*source.rows)) == seen - {None}


def test_padding_that_counts_ends_where_the_operator_says() -> None:
    window = SlidingWindow(taps=3, stride=2, counts_padding=True)
    assert window.input_rows((0, 2), 5) is not None
    assert window.input_rows((0, 3), 6) is None  # ceil_mode: the last window reaches beyond the input
    assert replace(window, counts_padding=False).input_rows((0, 3), 6) is not None


@pytest.mark.parametrize(("height", "count"), [(7, 3), (8, 8), (224, 12), (5, 1)])
def test_tiles_cover_the_rows_once(height: int, count: int) -> None:
    tiles = tile_rows(height, count)
    assert [row for tile in tiles for row in range(*tile)] == list(range(height))
    sizes = [stop - start for start, stop in tiles]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_hull() -> None:
    assert hull([(3, 5), (1, 2), (4, 9)]) == (1, 9)
