"""Hold what a simulation measured, and the counters that measure it in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Latencies in one bin of the histogram differ by this share at most.
_BIN = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBoard:
    """One board over the measured time.

    ``occupancy`` are the shares of the time in which 0, 1, 2 ... inputs waited in its queue; they sum to 1.
    ``joules`` are for one inference.
    """

    busy_fraction: float
    served: int
    occupancy: tuple[float, ...]
    joules: float

    def joined(self, other: SimulatedBoard, dynamic_j: float) -> SimulatedBoard:
        """Return the figures with another stage's of the same board: the fuller queue's, and its dynamic joules."""
        return SimulatedBoard(
            busy_fraction=self.busy_fraction + other.busy_fraction,
            served=max(self.served, other.served),
            occupancy=max(self, other, key=lambda each: each.mean_occupancy).occupancy,
            joules=self.joules + dynamic_j,
        )

    @property
    def mean_occupancy(self) -> float:
        """The mean number of inputs that wait."""
        return sum(count * share for count, share in enumerate(self.occupancy))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a placement did: inferences a second, seconds of latency, queues, energy, traffic.

    ``window_s`` is the time that was measured: without the first fifth, in which queues fill. ``inferences`` came out in it.
    ``static_joules`` and ``dynamic_joules`` are for one inference, of all boards of the fleet, hub and manager
    included. ``link_bytes`` are for one inference, by (from, to); ``link_busy`` are shares of the time, by what carries one
    message at a time (`hyps.runtime.cluster.simulation.tensor_messages`).
    """

    throughput_per_s: float
    latency_mean_s: float
    latency_s: Mapping[float, float]
    boards: Mapping[str, SimulatedBoard]
    static_joules: float
    dynamic_joules: float
    link_bytes: Mapping[tuple[str, str], float]
    link_busy: Mapping[tuple[str, str], float]
    inferences: int
    window_s: float

    @property
    def joules(self) -> float:
        """Joules of one inference, static and dynamic together."""
        return self.static_joules + self.dynamic_joules


@dataclass(slots=True)
class LatencyHistogram:
    """Latencies by their logarithm: quantiles to a thousandth, however many there are."""

    count: int = 0
    total_s: float = 0.0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one latency."""
        self.count += 1
        self.total_s += seconds
        self.bins[math.floor(math.log(max(seconds, 1e-12)) / _BIN)] += 1

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the latencies does not exceed, 0 if there are none."""
        seen = 0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= share * self.count:
                return math.exp((number + 0.5) * _BIN)
        return 0.0


@dataclass(slots=True)
class StationCounters:
    """One station's counters since the measurement began: busy seconds, inputs served, seconds by occupancy."""

    since: float
    occupancy_s: list[float]
    busy_s: float = 0.0
    served: int = 0

    def pass_time(self, now: float, waiting: int, busy: bool) -> None:
        """Count the time since the last change, in which this many inputs waited."""
        elapsed, self.since = now - self.since, now
        self.occupancy_s[min(waiting, len(self.occupancy_s) - 1)] += elapsed
        self.busy_s += elapsed * busy

    def restart(self, now: float) -> None:
        """Forget what was counted."""
        self.since, self.busy_s, self.served = now, 0.0, 0
        self.occupancy_s = [0.0] * len(self.occupancy_s)
