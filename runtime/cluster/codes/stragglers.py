"""Learn how long a coded group's answers take, and so when to decode instead of waiting (Hadidi, section 6.3.2)."""

from __future__ import annotations

import math
from collections import deque

#: The group's last times that are remembered, and how many must be known.
_SAMPLES, _LEAST_SAMPLES = 200, 12
#: A group waits for its slowest shards until this part of its past times, and this factor longer. What counts is the time of
#: the k-th answer of k + R: a board that is always late does not change it.
_QUANTILE, _MARGIN = 0.95, 1.25


class StragglerThreshold:
    """The time, since a group's inputs were sent, after which its missing shards are decoded if they can be.

    ``fixed_s`` is the operator's choice; None has it learned.
    """

    def __init__(self, fixed_s: float | None = None) -> None:
        self._fixed_s = fixed_s
        self._times: deque[float] = deque(maxlen=_SAMPLES)

    def learn(self, seconds: float) -> None:
        """Note how long a group took until it could be decoded."""
        self._times.append(seconds)

    @property
    def seconds(self) -> float:
        """The threshold; infinite until enough is known."""
        if self._fixed_s is not None:
            return self._fixed_s
        if len(self._times) < _LEAST_SAMPLES:
            return math.inf
        ordered = sorted(self._times)
        return _MARGIN * ordered[math.ceil(_QUANTILE * len(ordered)) - 1]
