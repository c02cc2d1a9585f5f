"""Describe seeded weights, which are drawn only when they are written."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededWeight:
    """The description of a float32 tensor of normally distributed values.

    ``shape`` is [out, in / groups, kernel, kernel] for a convolution, [out, in] for a Gemm, [channels] for a bias or a
    normalisation; ``filter_axes`` are the axes that number the filters, the others are what a filter sums over.

    ``zero_sum`` makes each filter sum to zero. Rectified activations have a positive mean that
    is the same for every image; an ordinary random filter passes it on, layer after layer, until all images look alike
    and fall into one class. A filter that sums to zero removes it and sees only what differs.
    """

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float
    zero_sum: bool = False
    filter_axes: tuple[int, ...] = (0,)

    @property
    def summed_axes(self) -> tuple[int, ...]:
        """The axes over which a filter sums."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.filter_axes)

    @property
    def size_bytes(self) -> int:
        """Bytes of the values as float32."""
        return 4 * math.prod(self.shape)

    def draw(self, seed: int) -> NDArray[np.float32]:
        """Draw the values for a seed; they depend on the weight's name, not on the order of drawing."""
        generator = np.random.default_rng((seed, zlib.crc32(self.name.encode())))
        values = np.empty(self.shape, dtype=np.float32)
        generator.standard_normal(out=values, dtype=np.float32)
        if self.zero_sum:
            values -= values.mean(axis=self.summed_axes, keepdims=True)
        values *= np.float32(self.deviation)
        if self.mean:
            values += np.float32(self.mean)
        return values
