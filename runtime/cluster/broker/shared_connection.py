"""The hub below a group worker: one connection, as its manager, that outlives the managers of the shares that come and go.

A hub with passwords lets its manager connect once. So what needs that connection has a part of it: who looks which workers
are there, the manager of the share, and that manager's clients. The clients' messages never reach the hub: they are handed
over here. A manager begins with what the workers last said, as if the hub had kept it for this connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from hyps.runtime.cluster.broker.connection import manager_link
from hyps.runtime.cluster.broker.join import Address, Join
from hyps.runtime.cluster.broker.link import Link, Receiver
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.frames import Dropped
from hyps.runtime.cluster.protocol.messages import WorkerState
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, parse_topic, topic
from hyps.runtime.errors import HubError

log = logging.getLogger(__name__)


class SharedConnection:
    """``changed`` is called, on the connection's thread, whenever a worker says how it is, or no more is known of any.

    With ``clients``, there are some at the hub, too, and not in this process alone.
    """

    def __init__(self, join: Join, changed: Callable[[], None], *, clients: bool = False) -> None:
        self._changed, self.clients = changed, clients
        self._said: dict[str, tuple[bytes, WorkerState]] = {}
        self._heard_at: dict[str, float] = {}
        self._desk: InProcessHub | None = None
        self._lock = threading.RLock()
        self._connection = manager_link(join)(MANAGER, received=self._receive, connected=self._connected)

    @property
    def address(self) -> Address:
        """Where it is."""
        return self._connection.address

    @property
    def connected(self) -> bool:
        """There is a connection now."""
        return self._connection.connected

    def open(self) -> None:
        """Connect; a hub that is not there yet is waited for. Raises `HubError`."""
        self._connection.open(patient=True)

    def close(self) -> None:
        """Take leave."""
        self._connection.close()

    def workers(self) -> list[WorkerState]:
        """What those that are there last said; none are while there is no connection."""
        with self._lock:
            return [state for _, state in self._said.values()] if self.connected else []

    def heard(self) -> list[tuple[str, WorkerState, float]]:
        """Each with its name, and how many seconds ago it said anything."""
        now = time.monotonic()
        with self._lock:
            names = {text: text.split("/")[2] for text in self._said}
            return [(names[text], state, now - self._heard_at[names[text]]) for text, (_, state) in self._said.items()]

    def publish(self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> None:
        """Send to the workers."""
        self._connection.publish(topic, payload, retain=retain, expiry_s=expiry_s)

    def seat(self, desk: InProcessHub, received: Receiver) -> None:
        """From now on the workers' messages go to the manager at this desk."""
        with self._lock:
            self._desk = desk
            for text, (payload, _) in self._said.items():
                received(text, payload, _nothing)

    def leave(self, desk: InProcessHub) -> None:
        """Its manager has ended."""
        if self._desk is desk:  # without the lock: who has it may wait for this manager
            self._desk = None

    def _connected(self) -> None:
        """What was said before a hub that was killed came back may be so no more: those that are there say it again."""
        with self._lock:
            self._said.clear()
        self._changed()
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        if self.clients:
            self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        if desk := self._desk:
            desk.connected()

    def _receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        found = parse_topic(text)
        of_state = found is not None and found[0] is Role.WORKER and found[2] == "state"
        with self._lock:
            if found and found[0] is Role.WORKER:
                self._heard_at[found[1]] = time.monotonic()
            if of_state:
                self._note(text, payload)
            if self._desk:
                self._desk.received(text, payload, acknowledge)
            else:
                acknowledge()
        if of_state:
            self._changed()

    def _note(self, text: str, payload: bytes) -> None:
        try:
            state = messages.decode(payload, WorkerState)
        except Dropped as reason:
            log.warning("dropped a message of %d bytes on %s: %s", len(payload), text, reason)
            return
        before = self._said.get(text)
        if state.online:
            self._said[text] = payload, state
        elif before and before[1].session == state.session:
            del self._said[text]


class InProcessHub:
    """A manager and its clients in this process, at the hub below: made for one share, closed with it."""

    def __init__(self, hub: SharedConnection) -> None:
        self._hub = hub
        self._manager: tuple[Receiver, Callable[[], None]] | None = None
        self._clients: dict[str, Receiver] = {}

    def link(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> Link:
        """A link for the manager or a client: a `hyps.runtime.cluster.broker.link.Linker`."""
        return _Part(self, self._hub, name, received, connected)

    def join(self, name: str, received: Receiver, connected: Callable[[], None]) -> None:
        """Someone opens a link."""
        if name == MANAGER:
            self._manager = received, connected
            self._hub.seat(self, received)
            connected()
        else:
            self._clients[name] = received

    def leave(self, name: str) -> None:
        """Someone closes it."""
        if name == MANAGER:
            self._manager = None
            self._hub.leave(self)
        else:
            self._clients.pop(name, None)

    def received(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """A worker's message for the manager."""
        if manager := self._manager:
            manager[0](text, payload, acknowledge)

    def connected(self) -> None:
        """The hub is back."""
        if manager := self._manager:
            manager[1]()

    def publish(self, text: str, payload: bytes, *, retain: bool, expiry_s: int | None) -> None:
        """Hand over what a client sends or gets, send what is for workers. Raises `HubError` when the manager is gone."""
        found = parse_topic(text)
        if found is None or found[0] is not Role.CLIENT:
            self._hub.publish(text, payload, retain=retain, expiry_s=expiry_s)
        elif found[2] == "submit":
            if self._manager is None:
                raise HubError("the manager has ended")
            self._manager[0](text, payload, _nothing)
        elif client := self._clients.get(found[1]):
            client(text, payload, _nothing)
        elif self._hub.clients:
            self._hub.publish(text, payload, retain=retain, expiry_s=expiry_s)


class _Part:
    """One's part of the connection: a `hyps.runtime.cluster.broker.link.Link`."""

    def __init__(
        self, desk: InProcessHub, hub: SharedConnection, name: str, received: Receiver, connected: Callable[[], None]
    ) -> None:
        self._desk, self._hub, self._name, self._received, self._connected = desk, hub, name, received, connected
        self.address = hub.address

    @property
    def connected(self) -> bool:
        return self._hub.connected

    def open(self, wait_s: float = 0.0, *, patient: bool = False) -> None:
        self._desk.join(self._name, self._received, self._connected)

    def subscribe(self, topics: Sequence[str]) -> None:
        """The hub's own connection has what a manager wants, and the desk the rest."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
        self._desk.publish(topic, payload, retain=retain, expiry_s=expiry_s)

    def close(self) -> None:
        self._desk.leave(self._name)


def _nothing() -> None:
    """There is nothing to acknowledge."""
