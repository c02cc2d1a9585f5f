"""Hold what changes at the stations of a simulation, and how many inputs may wait where."""

from __future__ import annotations

from hyps.runtime.cluster.planning.simulation_result import StationCounters
from hyps.runtime.cluster.planning.stations import AT_HUB, Station, StationNetwork


class StationState:
    """A station's state: what waits, what is served until when, at which speed."""

    def __init__(self, station: Station, queue: int) -> None:
        self.station = station
        self.ready: list[int] = []
        self.missing: dict[int, int] = {}
        self.dealt = self.unsent = self.messages_each = 0
        self.serving: int | None = None
        self.until = self.service_s = 0.0
        self.scale, self.speed, self.version = 1.0, 1.0, 0
        self.counters = StationCounters(since=0.0, occupancy_s=[0.0] * (queue + 1))

    def seconds(self) -> float:
        """Return how long the present service takes at the present speed."""
        return self.station.compute_s * self.scale / self.speed + self.station.streaming_s

    @property
    def can_begin(self) -> bool:
        """Whether there is an input to serve, and of the results before at most one has still to be sent."""
        return self.serving is None and bool(self.ready) and self.unsent <= self.messages_each

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


def queue_places(network: StationNetwork, stage: int, queue: int) -> int:
    """Return how many inputs may have a place at a stage: in its queues, and one with each board that sends to it.

    Tensors that skip stages wait at their reader: there is a place, too, for every input in the stages between.
    """
    count = queue * _queues(network, stage)
    senders = [number for number in network.producers[stage] if number != AT_HUB]
    if AT_HUB in network.producers[stage] and senders:
        senders.append(0)
    if senders:
        first, last = min(senders), max(senders)
        count += sum(_queues(network, number) for number in range(first, stage))
        count += sum(queue * _queues(network, number) for number in range(first + 1, last + 1))
    return count


def _queues(network: StationNetwork, stage: int) -> int:
    return len(network.stages[stage]) if network.sharing[stage] == "replicas" else 1


def replica_load(state: StationState) -> tuple[int, float, int]:
    """Order replicas by the inputs they have, then by speed."""
    return state.dealt + (state.serving is not None), state.station.service_s, state.station.number
