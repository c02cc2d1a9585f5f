"""Choose the stations that get an input: all of a stage, or the replica with the fewest inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyps.runtime.cluster.simulation.station_state import StationState, replica_load
from hyps.runtime.cluster.simulation.stations import AT_HUB, Delivery, StationNetwork
from hyps.runtime.cluster.simulation.tensor_messages import Reader


class Receivers:
    """The receivers of one simulation's tensors; ``states`` are the stations' by stage."""

    def __init__(self, network: StationNetwork, states: Sequence[Sequence[StationState]]) -> None:
        self._network, self._states = network, states
        #: By stage: the replica that gets each input.
        self._replica: list[dict[int, int]] = [{} for _ in network.stages]

    def of(self, item: int, delivery: Delivery) -> Iterable[int]:
        """Return the numbers of the stations that get an input."""
        if not self._is_replicated(delivery.stage):
            return delivery.tensors
        dealt = self._replica[delivery.stage]
        if item not in dealt:
            row = self._states[delivery.stage]
            dealt[item] = min(range(len(row)), key=lambda number: replica_load(row[number]))
        return [dealt[item]]

    def reader(self, delivery: Delivery, number: int) -> Reader:
        """Return a station, or the hub, with the tensors that it gets."""
        board = None if delivery.stage == AT_HUB else self._states[delivery.stage][number].station.board.name
        share = 0 if self._is_replicated(delivery.stage) else number
        return Reader(stage=delivery.stage, number=number, board=board, tensors=delivery.tensors[share])

    def forget(self, item: int, stage: int) -> None:
        """Forget which replica of a stage gets an input: it has it."""
        self._replica[stage].pop(item, None)

    def _is_replicated(self, stage: int) -> bool:
        return stage != AT_HUB and self._network.sharing[stage] == "replicas"
