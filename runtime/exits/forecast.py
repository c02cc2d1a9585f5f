"""Forecast what the steps up to the next exit will take, in seconds or in joules, from what earlier ones took.

A forecast is the smoothed mean plus four times the smoothed mean deviation, as for the retransmission timer of TCP (Jacobson
and Karels, 1988): it is exceeded seldom, and follows a device that becomes slower. Steps that never ran are taken to cost as
much for each multiply-add, or for each byte of weights, as all that ran did, whichever is more.

What is not run is not measured. So a forecast for which an inference ended sinks a little each time, until the steps are
tried again: faster where they ran once, which was when their weights came into memory for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4
#: The part by which a forecast sinks, after one run and after more.
_FIRST_SINKING, _SINKING = 1 / 8, 1 / 64


@dataclass(slots=True)
class _Smoothed:
    mean: float
    deviation: float = 0.0
    runs: int = 1

    def add(self, value: float) -> None:
        difference = value - self.mean
        if self.runs == 1:
            self.mean, self.deviation = value, 0.0
        else:
            self.mean += _GAIN * difference
            self.deviation += _DEVIATION_GAIN * (abs(difference) - self.deviation)
        self.runs += 1

    def sink(self) -> None:
        left = 1 - (_FIRST_SINKING if self.runs == 1 else _SINKING)
        self.mean, self.deviation = self.mean * left, self.deviation * left


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
            self._known[stretch] = _Smoothed(cost)

    def skip(self, stretch: int) -> None:
        """Take note that a stretch was not run for what it is expected to take."""
        if stretch in self._known:
            self._known[stretch].sink()

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
