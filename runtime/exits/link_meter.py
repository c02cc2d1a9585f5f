"""Measure a link by timed messages: the round trip by small ones, the bandwidth by large ones and by what is offloaded.

A hub acknowledges a message once it has all of it. So a large message's acknowledgement takes longer than a small one's by
the time that its bytes take upwards.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The part of a new figure in the mean: a link that changes is followed within a few messages.
_GAIN = 0.5
#: The least seconds that a transfer counts as, so that a rate has a bound: the resolution of the measurement.
_LEAST_S = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """A link as it was measured lately: the bytes a second upwards, and the seconds there and back of a small message."""

    bandwidth_bytes_per_s: float
    round_trip_s: float

    def seconds(self, nbytes: int) -> float:
        """Return what it takes to send so many bytes and to get a small answer."""
        return self.round_trip_s + nbytes / self.bandwidth_bytes_per_s


class LinkMeter:
    """The figures of one link; ``state`` is None until both are known."""

    def __init__(self) -> None:
        self._round_trip_s: float | None = None
        self._acknowledged_s: float | None = None
        self._bandwidth: float | None = None

    @property
    def state(self) -> LinkState | None:
        """The link as it was measured lately."""
        if self._round_trip_s is None or self._bandwidth is None:
            return None
        return LinkState(bandwidth_bytes_per_s=self._bandwidth, round_trip_s=self._round_trip_s)

    def returned(self, seconds: float) -> None:
        """Take note of the round trip of a small message to the tier above."""
        self._round_trip_s = _mean(self._round_trip_s, seconds)

    def acknowledged(self, seconds: float) -> None:
        """Take note of the time until a small message was acknowledged."""
        self._acknowledged_s = _mean(self._acknowledged_s, seconds)

    def transferred(self, nbytes: int, seconds: float) -> None:
        """Take note of the time until so many bytes were acknowledged."""
        passing_s = max(seconds - (self._acknowledged_s or 0.0), _LEAST_S)
        self._bandwidth = _mean(self._bandwidth, nbytes / passing_s)


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + _GAIN * (value - before)
