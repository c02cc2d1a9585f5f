"""Share one connection to a hub among a manager's parts in this process, and keep it while managers come and go.

A hub with passwords lets its manager connect once, so everything here that needs the hub shares that connection: the code
that watches which workers are there, the manager of a bundle, and that manager's clients. The clients' messages never reach
the hub: they are handed over in this process. A new manager first gets the workers' last states, as if the hub had kept
them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from hyps.runtime.cluster.broker.connection import manager_link
from hyps.runtime.cluster.broker.join import Address, Join
from hyps.runtime.cluster.broker.link import Link, Receiver
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.frames import Rejection
from hyps.runtime.cluster.protocol.messages import MAX_BELOW, MAX_BOARD_NAME, BoardEnergy, Pulse, WorkerState
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, User, parse_topic, topic
from hyps.runtime.errors import HubError

#: The beginning of a pulse: other messages are not decoded here.
_PULSE = b'{"type":"pulse"'
_log = logging.getLogger(__name__)


class SharedConnection:
    """The manager's connection to one hub, with the last state of each worker there.

    ``changed`` is called, on the connection's thread, when a worker has sent its state or when all states are unknown again.
    With ``clients``, there are clients at the hub as well as in this process.
    """

    def __init__(self, join: Join, changed: Callable[[], None], *, clients: bool = False) -> None:
        self._changed, self.clients = changed, clients
        self._states: dict[User, tuple[bytes, WorkerState]] = {}
        self._rejected = Tally()
        self._heard_at: dict[User, float] = {}
        self._pulses: dict[User, Pulse] = {}
        self._local_hub: InProcessHub | None = None
        self._lock = threading.RLock()
        self._connection = manager_link(join)(MANAGER, received=self._receive, connected=self._connected)

    @property
    def address(self) -> Address:
        """The hub's address."""
        return self._connection.address

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection.connected

    def open(self) -> None:
        """Connect, and wait for a hub that is not there yet. Raises `HubError`."""
        self._connection.open(patient=True)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def workers(self) -> list[WorkerState]:
        """Return the states of the workers that are there; none without a connection."""
        with self._lock:
            return [state for _, state in self._states.values()] if self.connected else []

    def heard(self) -> list[tuple[str, WorkerState, float]]:
        """Return each worker's name and state, and the seconds since it said anything."""
        now = time.monotonic()
        with self._lock:
            return [(user.name, state, now - self._heard_at[user]) for user, (_, state) in self._states.items()]

    def energies(self) -> dict[str, BoardEnergy]:
        """Return what the workers that are there last said of their boards' energy, and of boards below them, by name."""
        found: dict[str, BoardEnergy] = {}
        with self._lock:
            for user in self._states:
                if pulse := self._pulses.get(user):
                    found |= {f"{user.name}/{name}": energy for name, energy in pulse.below.items()}
                    found |= {user.name: pulse.energy} if pulse.energy else {}
        return {name: found[name] for name in sorted(found)[:MAX_BELOW] if len(name) <= MAX_BOARD_NAME}

    def publish(self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> None:
        """Publish a message at the hub."""
        self._connection.publish(topic, payload, retain=retain, expiry_s=expiry_s)

    def attach(self, local_hub: InProcessHub, received: Receiver) -> None:
        """Deliver the workers' messages to this hub's manager from now on, and their last states to ``received``."""
        with self._lock:
            self._local_hub = local_hub
            for user, (payload, _) in self._states.items():
                received(topic(user.role, user.name, "state"), payload, _nothing_to_acknowledge)

    def detach(self, local_hub: InProcessHub) -> None:
        """Deliver nothing to this hub any more: its manager has ended."""
        if self._local_hub is local_hub:  # not under the lock: its holder may be waiting for this manager
            self._local_hub = None

    def _connected(self) -> None:
        """Subscribe (on the connection's thread).

        The states are forgotten: they may have changed before a killed hub came back, and the workers send them again.
        """
        with self._lock:
            self._states.clear()
            self._pulses.clear()
        self._changed()
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        if self.clients:
            self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        if local_hub := self._local_hub:
            local_hub.connected()

    def _receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        source = parse_topic(text)
        worker = source.user if source and source.user.role is Role.WORKER else None
        is_state = worker is not None and source is not None and source.channel == "state"
        with self._lock:
            if worker:
                self._heard_at[worker] = time.monotonic()
                if is_state:
                    self._note_state(worker, payload)
                elif payload.startswith(_PULSE):
                    with suppress(Rejection):
                        if isinstance(pulse := messages.decode_worker_message(payload), Pulse):
                            self._pulses[worker] = pulse
            if self._local_hub:
                self._local_hub.received(text, payload, acknowledge)
            else:
                acknowledge()
        if is_state:
            self._changed()

    def _note_state(self, worker: User, payload: bytes) -> None:
        try:
            state = messages.decode_state(payload)
        except Rejection as reason:
            if (times := self._rejected.count((worker, str(reason)))) is not None:
                _log.warning("dropped a state of %d bytes from %s: %s%s", len(payload), worker.name, reason, times)
            return
        before = self._states.get(worker)
        if state.online:
            self._states[worker] = payload, state
        elif before and before[1].session == state.session:
            del self._states[worker]
            self._pulses.pop(worker, None)


class InProcessHub:
    """A hub for one manager and its clients in this process; the workers are at the hub of a shared connection."""

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection
        self._manager: tuple[Receiver, Callable[[], None]] | None = None
        self._clients: dict[str, Receiver] = {}

    def link(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> Link:
        """Make a link for the manager or a client: a `hyps.runtime.cluster.broker.link.LinkFactory`."""
        return _InProcessLink(self, self._connection, name, received, connected)

    def join(self, name: str, received: Receiver, connected: Callable[[], None]) -> None:
        """Connect the manager or a client."""
        if name == MANAGER:
            self._manager = received, connected
            self._connection.attach(self, received)
            connected()
        else:
            self._clients[name] = received

    def leave(self, name: str) -> None:
        """Disconnect the manager or a client."""
        if name == MANAGER:
            self._manager = None
            self._connection.detach(self)
        else:
            self._clients.pop(name, None)

    def received(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Deliver a message from the shared connection to the manager."""
        if manager := self._manager:
            manager[0](text, payload, acknowledge)

    def connected(self) -> None:
        """Tell the manager that the hub is back."""
        if manager := self._manager:
            manager[1]()

    def publish(self, text: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> None:
        """Deliver a message between the manager and a client here; publish any other at the hub.

        Raises `HubError` if the manager has ended.
        """
        target = parse_topic(text)
        if target is None or target.user.role is not Role.CLIENT:
            self._connection.publish(text, payload, retain=retain, expiry_s=expiry_s)
        elif target.channel == "submit":
            if (manager := self._manager) is None:
                raise HubError("the manager has ended")
            manager[0](text, payload, _nothing_to_acknowledge)
        elif client := self._clients.get(target.user.name):
            client(text, payload, _nothing_to_acknowledge)
        elif self._connection.clients:
            self._connection.publish(text, payload, retain=retain, expiry_s=expiry_s)


class _InProcessLink:
    """The link of one user of an `InProcessHub`: a `hyps.runtime.cluster.broker.link.Link`."""

    def __init__(
        self,
        hub: InProcessHub,
        connection: SharedConnection,
        name: str,
        received: Receiver,
        connected: Callable[[], None],
    ) -> None:
        self._hub, self._connection, self._name = hub, connection, name
        self._received, self._connected = received, connected
        self.address = connection.address

    @property
    def connected(self) -> bool:
        return self._connection.connected

    def open(self, wait_s: float = 0.0, *, patient: bool = False) -> None:
        self._hub.join(self._name, self._received, self._connected)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Do nothing: the shared connection has the manager's subscriptions, and the hub delivers the rest."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
        self._hub.publish(topic, payload, retain=retain, expiry_s=expiry_s)

    def wait_until_sent(self, all_but_bytes: int, timeout_s: float | None = None) -> bool:
        """Do nothing: each message is handed over at once."""
        return True

    def close(self) -> None:
        self._hub.leave(self._name)


def _nothing_to_acknowledge() -> None:
    """Do nothing: the message did not come from the hub."""
