"""Carry out a simulation event by event; `hyps.runtime.cluster.simulation.simulate` says by which rules."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from hyps.runtime.cluster.planning.problem import HUB, Fleet, Workload
from hyps.runtime.cluster.simulation.links import SimulatedLinks
from hyps.runtime.cluster.simulation.measurement import Measurement
from hyps.runtime.cluster.simulation.options import SimulationLimits, SpeedChange
from hyps.runtime.cluster.simulation.queue_places import QueuePlaces
from hyps.runtime.cluster.simulation.receivers import Receivers
from hyps.runtime.cluster.simulation.result import SimulationResult
from hyps.runtime.cluster.simulation.station_state import StationState
from hyps.runtime.cluster.simulation.stations import AT_HUB, Delivery, StationNetwork
from hyps.runtime.cluster.simulation.tensor_messages import TensorMessage, messages

#: The share of the run in which queues fill, and nothing is measured.
_FILLING = 0.2


class Simulation:
    """One run. `outputs` carries it out and yields (number, seconds) of each input that leaves; `result` has the figures."""

    def __init__(
        self, workload: Workload, fleet: Fleet, network: StationNetwork, limits: SimulationLimits, generator: random.Random
    ) -> None:
        self._workload, self._fleet, self._network, self._limits = workload, fleet, network, limits
        self._random = generator
        self._states = [[StationState(station, limits.queue) for station in row] for row in network.stages]
        self._all = [state for row in self._states for state in row]
        #: By board: its stations, one in each of its stages; one of them works at a time.
        self._of_board: dict[str, list[StationState]] = {}
        for state in self._all:
            self._of_board.setdefault(state.station.board.name, []).append(state)
        self._places = QueuePlaces(network, limits.queue)
        self._receivers = Receivers(network, self._states)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._now = 0.0
        self._links = SimulatedLinks()
        self._measurement = Measurement(self._all, self._links)
        self._entered: dict[int, float] = {}
        self._injected = self._left = 0
        self._out: dict[int, int] = {}
        self._done: set[int] = set()
        self._woken: deque[StationState | None] = deque()
        self._messages: dict[tuple[str, int, tuple[int, ...]], tuple[TensorMessage, ...]] = {}

    def plan(self, change: SpeedChange) -> None:
        """Have a board change its speed."""
        self._at(change.at_s, partial(self._change_speed, change))

    def outputs(self) -> Iterator[tuple[int, float]]:
        """Run until the limit; yield the number of each input that leaves, and when."""
        limits = self._limits
        starts = int((limits.inputs or 0) * _FILLING)
        if limits.seconds is not None:
            self._at(limits.seconds * _FILLING, self._measure)
        self._wake(None)
        self._begin_woken()
        while self._events and (limits.inputs is None or self._left < limits.inputs):
            time_s, _, happen = heapq.heappop(self._events)
            if limits.seconds is not None and time_s > limits.seconds:
                self._now = limits.seconds
                break
            self._now, before = time_s, self._left
            happen()
            for number in range(before, self._left):
                yield number, time_s
            if before < starts <= self._left:
                self._measure()
            self._begin_woken()
        for state in self._all:
            state.count(self._now)

    def result(self) -> SimulationResult:
        """Return what was measured."""
        return self._measurement.result(self._fleet, self._now, self._left)

    def _at(self, time_s: float, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time_s, self._order, happen))

    def _measure(self) -> None:
        """Begin to measure: the queues have filled."""
        self._measurement.restart(self._now, self._left)

    def _wake(self, state: StationState | None) -> None:
        """Have a station, or the hub (None), check later whether it can begin an input."""
        self._woken.append(state)

    def _begin_woken(self) -> None:
        while self._woken:
            state = self._woken.popleft()
            if state is None:
                self._enter()
            elif state.can_begin and self._is_free(state) and self._has_places(state.ready[0], state.station.deliveries):
                self._begin(state)

    def _is_free(self, state: StationState) -> bool:
        """Return whether a station's board works for none of its other stages."""
        return all(other.serving is None for other in self._of_board[state.station.board.name])

    def _enter(self) -> None:
        """Let inputs in while there is a place for them."""
        limits, deliveries = self._limits, self._network.source
        while limits.inputs is None or self._injected < limits.inputs:
            item = self._injected
            due = item / limits.rate if limits.rate else self._now
            if due > self._now:
                self._at(due, partial(self._wake, None))
                return
            if not self._has_places(item, deliveries):
                return
            self._injected += 1
            self._entered[item] = due
            self._send(None, item, deliveries)

    def _has_places(self, item: int, deliveries: Sequence[Delivery]) -> bool:
        """Return whether all that read an input's tensors have a place for it; if so, reserve the places."""
        return self._places.reserve(item, deliveries, is_oldest=item == self._left)

    def _begin(self, state: StationState) -> None:
        state.count(self._now)
        item = heapq.heappop(state.ready)
        stage = state.station.stage
        state.serving, state.dealt = item, state.dealt - 1
        jitter = self._limits.jitter
        state.scale = 1 + self._random.uniform(-jitter, jitter) if jitter else 1.0
        state.unpack_early(item, self._now)
        state.service_s = state.seconds()
        state.until = self._now + state.service_s
        state.version += 1
        self._at(state.until, partial(self._served, state, state.version))
        if self._places.release(item, stage):
            self._receivers.forget(item, stage)
            for producer in self._network.producers[stage]:
                for each in [None] if producer == AT_HUB else self._states[producer]:
                    self._wake(each)

    def _served(self, state: StationState, version: int) -> None:
        """Send what was computed, while it is packed."""
        if version != state.version:  # the board has changed its speed since
            return
        assert state.serving is not None
        packed_s = self._now + state.station.packing_s / state.speed
        self._send(state, state.serving, state.station.deliveries, packed_s)
        if packed_s > self._now:
            self._at(packed_s, partial(self._packed, state, state.serving))
        else:
            self._packed(state, state.serving)

    def _packed(self, state: StationState, item: int) -> None:
        state.count(self._now)
        state.serving = None
        state.counters.served += 1
        stations = self._of_board[state.station.board.name]
        for each in stations:
            each.idle_since = self._now
        for each in sorted(stations, key=lambda each: each.ready[0] if each.ready else item + 1):  # the oldest input first
            self._wake(each)

    def _send(self, state: StationState | None, item: int, deliveries: Sequence[Delivery], last_byte_s: float = 0.0) -> None:
        """Send what a board, or the hub as None, has for an input, whose last byte is ready at ``last_byte_s``.

        Equal readers get equal messages, which are made once.
        """
        sender = state.station.board.name if state else HUB
        readers = [(delivery, number) for delivery in deliveries for number in self._receivers.of(item, delivery)]
        key = sender, state.station.stage if state else AT_HUB, tuple(number for _, number in readers)
        if key not in self._messages:
            self._messages[key] = messages(
                self._workload, self._fleet, sender, [self._receivers.reader(*each) for each in readers]
            )
        for delivery, number in readers:
            if delivery.stage != AT_HUB:
                self._states[delivery.stage][number].expect(item)
        for message in self._messages[key]:
            self._carry(item, message, 0, last_byte_s, state)
        if state:
            state.messages_each = len(self._messages[key])
            state.unsent += state.messages_each

    def _carry(
        self, item: int, message: TensorMessage, hop: int, last_byte_s: float, sender: StationState | None = None
    ) -> None:
        """Put a message on a part of its way, and have it arrive, or go on by the next part or from the hub."""
        carried = self._links.carry(message.hops[hop], message.nbytes, self._now, last_byte_s)
        if hop == 0 and not message.to_hub:
            first_s = carried.first_byte_s + sum(each.latency_s for each in message.hops[1:])
            self._states[message.stage][message.number].begin_to_arrive(item, first_s)
        if hop + 1 < len(message.hops):  # the same transmission: it goes on byte by byte
            at_s, last_s = carried.next_begin(message.hops[hop + 1], message.nbytes, 0)
            self._at(at_s, partial(self._carry, item, message, hop + 1, last_s, sender))
            return
        if sender:
            self._at(carried.last_byte_s - carried.hop.latency_s, partial(self._sent, sender))
        for each in message.onward:
            at_s, last_s = carried.next_begin(each.hops[0], each.nbytes, self._limits.chunk_bytes or message.nbytes)
            self._at(at_s, partial(self._carry, item, each, 0, last_s))
        if not message.to_hub:
            self._at(carried.last_byte_s, partial(self._arrive, item, self._states[message.stage][message.number]))
        elif message.leaves:
            self._at(carried.last_byte_s, partial(self._leave, item))

    def _sent(self, state: StationState) -> None:
        state.unsent -= 1
        self._wake(state)

    def _arrive(self, item: int, state: StationState) -> None:
        if state.has_all_of(item):
            state.count(self._now)
            heapq.heappush(state.ready, item)
            self._wake(state)

    def _leave(self, item: int) -> None:
        """Note an output. Inputs all of whose outputs are there leave in their order."""
        self._out[item] = self._out.get(item, self._network.output_messages) - 1
        if self._out[item]:
            return
        del self._out[item]
        self._done.add(item)
        while self._left in self._done:
            self._done.remove(self._left)
            self._measurement.add_latency(self._now - self._entered.pop(self._left))
            self._left += 1
        for state in [None, *self._all]:  # the oldest input needs no place
            if state is None or (state.ready and state.ready[0] == self._left):
                self._wake(state)

    def _change_speed(self, change: SpeedChange) -> None:
        """Change a board's speed; what it serves now takes the rest of its work at the new one."""
        for state in self._all:
            if state.station.board.name != change.board:
                continue
            rest = (state.until - self._now) / state.service_s if state.service_s else 0.0
            state.speed = change.factor
            if state.serving is not None and self._now < state.until:
                state.service_s = state.seconds()
                state.until = self._now + rest * state.service_s
                state.version += 1
                self._at(state.until, partial(self._served, state, state.version))
