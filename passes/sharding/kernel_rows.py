"""Which rows of its input a convolution that is split spatially reads for some rows of its result (Hadidi, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A convolution's kernel along its first spatial axis, in rows of the input: ``extent`` with its dilation."""

    rows: int
    extent: int
    stride: int
    before: int
    after: int
    pads: tuple[int, ...]

    @staticmethod
    def of(attributes: Mapping[str, Any], kernel: Shape, source: Shape) -> Kernel:
        """Of a convolution with these attributes; ``pads`` are those of every axis, whatever ``auto_pad`` says."""
        spatial = len(kernel) - 2
        strides = attributes.get("strides") or [1] * spatial
        dilations = attributes.get("dilations") or [1] * spatial
        extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel[2:], dilations, strict=True)]
        pads = tuple(attributes.get("pads") or [0] * 2 * spatial)
        automatic = attributes.get("auto_pad", "NOTSET")
        if automatic == "VALID":
            pads = (0,) * 2 * spatial
        elif automatic in {"SAME_UPPER", "SAME_LOWER"}:
            sizes = zip(source[2:], strides, extents, strict=True)
            totals = [max((-(-size // stride) - 1) * stride + extent - size, 0) for size, stride, extent in sizes]
            small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
            pads = (*small, *large) if automatic == "SAME_UPPER" else (*large, *small)
        return Kernel(rows=source[2], extent=extents[0], stride=strides[0], before=pads[0], after=pads[spatial], pads=pads)

    def reads(self, start: int, stop: int) -> tuple[int, int, tuple[int, ...]]:
        """What rows ``start..stop`` of the result are made of: (first row, row behind the last, pads)."""
        first = start * self.stride - self.before
        last = (stop - 1) * self.stride - self.before + self.extent
        spatial = len(self.pads) // 2
        pads = list(self.pads)
        pads[0], pads[spatial] = max(0, -first), max(0, last - self.rows)
        return max(0, first), min(self.rows, last), tuple(pads)
