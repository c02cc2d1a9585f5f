"""The receptive field of rows: the input rows that a sliding window reads to compute some rows of its output.

Rows are indices along the first spatial axis, as (start, stop). A convolution or a pooling slides a window over them; an
operator that is computed row by row is a window of one tap. Beyond the first and the last row the window reads padding. A
tile or a shard at the edge keeps that padding, one inside has none. So every output row is computed from the same numbers
as in the whole operator (Hadidi, section 4.3, spatial splits; Zhao et al., DeepThings, 2018, section 3: fused tile
partitioning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyps.passes.onnx_ops import spatial_dilations, spatial_pads, spatial_strides

Rows = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRows:
    """Rows of an input, and the rows of padding that the window reads before and after them."""

    rows: Rows
    pads: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """The window of an operator along the rows; by default of one that is computed row by row.

    ``pads`` are the operator's own rows of padding, before and after; onnxruntime accepts up to ``max_pad`` (None: any).
    ``counts_padding``: padding counts in a mean (AveragePool's ``count_include_pad``).
    """

    taps: int = 1
    stride: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    max_pad: int | None = None
    counts_padding: bool = False

    @property
    def extent(self) -> int:
        """The rows from the first tap to the last, both included."""
        return (self.taps - 1) * self.dilation + 1

    def input_rows(self, rows: Rows, height: int) -> InputRows | None:
        """Return what the output's ``rows`` need of an input of ``height`` rows; None where explicit padding cannot give it.

        That is so in three cases: the rows need nothing but padding; the padding would exceed ``max_pad``; a ``ceil_mode``
        window reaches beyond padding that counts (onnxruntime does not count what is beyond).
        """
        first = rows[0] * self.stride - self.pads[0]
        stop = (rows[1] - 1) * self.stride - self.pads[0] + self.extent
        before, after = max(0, -first), max(0, stop - height)
        inside = (max(0, first), min(height, stop))
        refused = self.max_pad is not None and max(before, after) > self.max_pad
        if inside[0] >= inside[1] or refused or (self.counts_padding and after > self.pads[1]):
            return None
        return InputRows(rows=inside, pads=(before, after))

    def output_height(self, height: int) -> int:
        """Return the output's rows for an input of ``height`` rows, ``ceil_mode`` left out."""
        return (height + sum(self.pads) - self.extent) // self.stride + 1


def row_window(attributes: Mapping[str, Any], kernel: Sequence[int], source: Sequence[int]) -> SlidingWindow:
    """Return the window along the rows of a Conv or pooling; ``kernel`` and ``source`` are sizes along the spatial axes."""
    axes = len(kernel)
    pads = spatial_pads(attributes, kernel, source)
    return SlidingWindow(
        taps=kernel[0],
        stride=spatial_strides(attributes, axes)[0],
        dilation=spatial_dilations(attributes, axes)[0],
        pads=(pads[0], pads[axes]),
    )
