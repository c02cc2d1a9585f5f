"""Which rows of its input an operator needs for some rows of its output: the geometry of row tiles.

Rows are indices along the first spatial axis, as (start, stop). A convolution or a pooling slides a window over them, any
other operator that is computed row by row is a window of one. What the window sees beyond the first or last row is padding:
a tile at the edge keeps it, a tile inside has none, so that every output row is computed from the same numbers as in the
whole (Hadidi, section 4.3, spatial splits; Zhao et al., DeepThings, 2018, section 3: fused tile partitioning).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

Rows = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows:
    """Rows of the input, and how many rows of padding the window sees before and behind them."""

    rows: Rows
    pads: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What an operator reads along the rows; the default is row by row.

    ``pads`` are the operator's own, and may be ``most_pads`` (None: any). ``counted``: its padding counts in a mean
    (AveragePool's ``count_include_pad``).
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    most_pads: int | None = None
    counted: bool = False

    def source(self, rows: Rows, height: int) -> SourceRows | None:
        """What of an input of ``height`` rows the output's ``rows`` need; None where no explicit padding gives them.

        That is where they see nothing but padding, where onnxruntime refuses as much padding as the window has taps, and
        where a ``ceil_mode`` window reaches beyond padding that counts (onnxruntime does not count what is beyond).
        """
        first = rows[0] * self.stride - self.pads[0]
        stop = (rows[1] - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.pads[0]
        before, after = max(0, -first), max(0, stop - height)
        inside = (max(0, first), min(height, stop))
        refused = self.most_pads is not None and max(before, after) > self.most_pads
        if inside[0] >= inside[1] or refused or (self.counted and after > self.pads[1]):
            return None
        return SourceRows(rows=inside, pads=(before, after))

    def height(self, rows: int) -> int:
        """The rows of the output of an input of so many rows, ``ceil_mode`` aside."""
        return (rows + sum(self.pads) - (self.kernel - 1) * self.dilation - 1) // self.stride + 1


def tile_rows(height: int, count: int) -> tuple[Rows, ...]:
    """``height`` rows in ``count`` tiles, as equal as can be."""
    bounds = [height * index // count for index in range(count + 1)]
    return tuple(itertools.pairwise(bounds))


def union(spans: Iterable[Rows]) -> Rows:
    """The rows from the first to the last of any of ``spans``."""
    starts, stops = zip(*spans, strict=True)
    return min(starts), max(stops)
