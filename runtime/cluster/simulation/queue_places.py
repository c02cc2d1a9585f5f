"""Reserve places in the queues of a simulation: an input begins only where its result has a place."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.cluster.simulation.stations import AT_HUB, Delivery, StationNetwork


class QueuePlaces:
    """The inputs that have a place at each stage, in queues of ``queue`` places a board."""

    def __init__(self, network: StationNetwork, queue: int) -> None:
        self._network = network
        self._places = [_place_count(network, stage, queue) for stage in range(len(network.stages))]
        #: By stage: the inputs that have a place there, and how many stations have not begun each.
        self._reserved: list[dict[int, int]] = [{} for _ in network.stages]

    def reserve(self, item: int, deliveries: Sequence[Delivery], *, is_oldest: bool) -> bool:
        """Reserve a place for an input with all that read its tensors; return False if one of them has none.

        The oldest input of all needs no free place, so that nothing can block for ever.
        """
        later = [delivery.stage for delivery in deliveries if delivery.stage != AT_HUB]
        new = [stage for stage in later if item not in self._reserved[stage]]
        if not is_oldest and any(len(self._reserved[stage]) >= self._places[stage] for stage in new):
            return False
        for stage in new:
            self._reserved[stage][item] = _readers(self._network, stage)
        return True

    def release(self, item: int, stage: int) -> bool:
        """Note that a station of a stage begins an input; return whether its place there is free again."""
        self._reserved[stage][item] -= 1
        if self._reserved[stage][item]:
            return False
        del self._reserved[stage][item]
        return True


def _place_count(network: StationNetwork, stage: int, queue: int) -> int:
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


def _readers(network: StationNetwork, stage: int) -> int:
    """Return how many stations of a stage get each input: one of its replicas, or all of its shards."""
    return 1 if network.sharing[stage] == "replicas" else len(network.stages[stage])
