"""Forecast what the steps up to the next exit will take, in seconds or in joules, from what earlier ones took.

A forecast is the smoothed mean plus four times the smoothed mean deviation, as for the retransmission timer of TCP (Jacobson
and Karels, 1988): it is exceeded seldom, and follows a device that becomes slower. Steps that never ran are taken to cost as
much for each multiply-add, or for each byte of weights, as all that ran did, whichever is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4


@dataclass(slots=True)
class _Smoothed:
    mean: float
    deviation: float

    def add(self, value: float) -> None:
        difference = value - self.mean
        self.mean += _GAIN * difference
        self.deviation += _DEVIATION_GAIN * (abs(difference) - self.deviation)


class Forecast:
    """The cost of each stretch of steps between two exits, of which ``macs`` and ``nbytes`` are known."""

    def __init__(self, macs: Sequence[int], nbytes: Sequence[int]) -> None:
        self._work = tuple(zip(macs, nbytes, strict=True))
        self._known: dict[int, _Smoothed] = {}

    def add(self, stretch: int, cost: float) -> None:
        """Take note of what a stretch took."""
        if stretch in self._known:
            self._known[stretch].add(cost)
        else:
            self._known[stretch] = _Smoothed(cost, 0.0)

    def cost(self, stretch: int) -> float:
        """Return the most that a stretch is expected to take; 0 where nothing is known yet."""
        if stretch in self._known:
            known = self._known[stretch]
            return known.mean + _DEVIATIONS * known.deviation
        total = sum(each.mean for each in self._known.values())
        shares = [0.0]
        for own, done in zip(
            self._work[stretch], (sum(self._work[each][part] for each in self._known) for part in (0, 1)), strict=True
        ):
            if done:
                shares.append(own / done)
        return total * max(shares)
