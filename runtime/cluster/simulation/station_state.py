"""Hold what changes at the stations of a simulation."""

from __future__ import annotations

from hyps.runtime.cluster.simulation.result import StationCounters
from hyps.runtime.cluster.simulation.stations import Station


class StationState:
    """A station's state: what waits, what is served until when, at which speed."""

    def __init__(self, station: Station, queue: int) -> None:
        self.station = station
        self.ready: list[int] = []
        self.missing: dict[int, int] = {}
        self.dealt = self.unsent = self.messages_each = 0
        self.serving: int | None = None
        self.until = self.service_s = 0.0
        #: When the board last ended something, and when the first bytes of each input came.
        self.idle_since, self.first_byte_s = 0.0, dict[int, float]()
        self.unpacked_s = 0.0
        self.scale, self.speed, self.version = 1.0, 1.0, 0
        self.counters = StationCounters(since=0.0, occupancy_s=[0.0] * (queue + 1))

    def seconds(self) -> float:
        """Return how long unpacking the rest and computing take at the present speed."""
        work_s = self.station.compute_s * self.scale + self.station.unpacking_s - self.unpacked_s
        return work_s / self.speed + self.station.streaming_s

    def begin_to_arrive(self, item: int, first_byte_s: float) -> None:
        """Note when the first byte of a message of an input is here."""
        self.first_byte_s[item] = min(first_byte_s, self.first_byte_s.get(item, first_byte_s))

    def unpack_early(self, item: int, now: float) -> None:
        """Note what of an input's messages was unpacked before it was complete: as much as the board had time for."""
        idle_s = now - max(self.idle_since, self.first_byte_s.pop(item, now))
        self.unpacked_s = min(self.station.unpacking_s, max(0.0, idle_s) * self.speed)
        self.counters.busy_s += self.unpacked_s / self.speed

    @property
    def can_begin(self) -> bool:
        """Whether there is an input to serve, and at most one earlier result is unsent."""
        return self.serving is None and bool(self.ready) and self.unsent <= self.messages_each

    def count(self, now: float) -> None:
        """Count the time since the last change."""
        self.counters.pass_time(now, len(self.ready), self.serving is not None)

    def expect(self, item: int) -> None:
        """Note that a message of an input is on its way here."""
        if item not in self.missing:
            self.missing[item] = self.station.messages
            self.dealt += 1

    def has_all_of(self, item: int) -> bool:
        """Note that a message of an input has come; return whether all have."""
        self.missing[item] -= 1
        if self.missing[item]:
            return False
        del self.missing[item]
        return True


def replica_load(state: StationState) -> tuple[int, float, int]:
    """Return a sort key: the replica with the fewest inputs comes first, then the fastest."""
    return state.dealt + (state.serving is not None), state.station.service_s, state.station.number
