"""Predict the mean and variance of an untrained network's values, layer by layer, in closed form.

Weights that are drawn without looking at data keep a deep network alive only if each layer's output has about the same
variance as the last one's. A layer whose inputs have variance v, and whose filters have n taps of variance 1 / (n v),
gives outputs of mean 0 and variance 1, nearly Gaussian across its channels. What follows it (a rectifier, a residual
sum) changes both moments in a way that can be written down (He et al., 2015, arXiv:1502.01852, generalised to a mean).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Expected mean and variance of a tensor's values across channels, at one position of one image."""

    mean: float
    variance: float

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of a sum of two independent tensors."""
        return Moments(mean=self.mean + other.mean, variance=self.variance + other.variance)

    def rectified(self, slope: float = 0.0) -> Moments:
        """Return the moments after a ReLU on Gaussian values; ``slope`` is that of a leaky one, below 0.

        With d = mean / sigma, the first two raw moments of max(x, 0) are mean Phi(d) + sigma phi(d) and
        (mean^2 + sigma^2) Phi(d) + mean sigma phi(d) (Tobin, Econometrica 26, 1958). A leaky ReLU is
        (1 - slope) max(x, 0) + slope x, its square (1 - slope^2) max(x, 0)^2 + slope^2 x^2.
        """
        sigma = math.sqrt(self.variance)
        ratio = self.mean / sigma
        cumulative = (1 + math.erf(ratio / math.sqrt(2))) / 2
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        square = self.mean**2 + self.variance
        mean = (1 - slope) * (self.mean * cumulative + sigma * density) + slope * self.mean
        second = (1 - slope**2) * (square * cumulative + self.mean * sigma * density) + slope**2 * square
        return Moments(mean=mean, variance=second - mean**2)


def mixed(parts: Sequence[tuple[int, Moments]]) -> Moments:
    """Return the moments across the channels of a concatenation of (channels, moments)."""
    if len({moments for _, moments in parts}) == 1:
        return parts[0][1]
    total = sum(channels for channels, _ in parts)
    mean = sum(channels * moments.mean for channels, moments in parts) / total
    second = sum(channels * (moments.variance + moments.mean**2) for channels, moments in parts) / total
    return Moments(mean=mean, variance=second - mean**2)


STANDARD = Moments(mean=0.0, variance=1.0)
"""Standardised values: a preprocessed photograph, or the output of any convolution, Gemm or normalisation."""
GELU = Moments(mean=0.28209, variance=0.34565)
"""Standardised values after x Phi(x): the mean is 1 / (2 sqrt(pi)), the variance was integrated numerically."""
