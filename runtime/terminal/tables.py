"""Lay out tables: numbers to the right, no line wider than the output; names that are too long lose their middle.

Written by hand because ``rich`` would cost a device memory that the network needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

from hyps.runtime.terminal.console import plain, styled, width

#: The space between columns.
_GAP = "  "
#: The characters that names keep; they are cut to fewer only after every spare column is left out.
_READABLE, _LEAST = 18, 8


class Column(NamedTuple):
    """A column: its heading, whether it holds numbers, and whether it is spare, left out where the line is too narrow."""

    heading: str
    numeric: bool = False
    spare: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], stream: TextIO | None = None) -> Iterator[str]:
    """Yield the lines of a table; the last line names the columns that did not fit."""
    out = stream or sys.stdout
    line_width = width(out)
    cells = [[plain(cell) for cell in row] for row in rows]
    natural = [max([len(column.heading), *(len(row[at]) for row in cells)]) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    spare = [at for at, column in enumerate(columns) if column.spare]
    while spare and _narrow(columns, natural, kept, _READABLE) > line_width:
        kept.remove(spare.pop())
    widths = _fitted(columns, natural, kept, line_width)
    yield styled(_line(columns, [column.heading for column in columns], widths), "1", out)
    for row in cells:
        yield _line(columns, row, widths)
    if left_out := [column.heading for at, column in enumerate(columns) if at not in widths]:
        yield f"(no room for {', '.join(left_out)}: widen the terminal, or use --json)"


def shortened(text: str, most: int) -> str:
    """Return at most this many characters, 2 at least: the middle of a longer text is left out."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def _narrow(columns: Sequence[Column], natural: Sequence[int], kept: Sequence[int], least: int) -> int:
    """Return the characters of a line whose names are cut to ``least``."""
    widths = (natural[at] if columns[at].numeric else min(natural[at], least) for at in kept)
    return sum(widths) + len(_GAP) * (len(kept) - 1)


def _fitted(columns: Sequence[Column], natural: Sequence[int], kept: Sequence[int], line_width: int) -> dict[int, int]:
    """Return the width of each column that is kept: the widest names are cut first."""
    widths = {at: natural[at] for at in kept}
    names = [at for at in kept if not columns[at].numeric]
    while sum(widths.values()) + len(_GAP) * (len(kept) - 1) > line_width:
        widest = max(names, key=lambda at: widths[at], default=None)
        if widest is None or widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: dict[int, int]) -> str:
    cells = (
        row[at].rjust(size) if columns[at].numeric else shortened(row[at], size).ljust(size) for at, size in widths.items()
    )
    return _GAP.join(cells).rstrip()
