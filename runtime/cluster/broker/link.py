"""Define what a manager and a client need of a hub: a connection of their own, or a part of a shared one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hyps.runtime.cluster.broker.join import Address

#: Called with a topic, a payload, and a function that acknowledges the message.
Receiver = Callable[[str, bytes, Callable[[], None]], None]


class Link(Protocol):
    """One user's way to the hub; see `hyps.runtime.cluster.broker.connection.Connection`."""

    @property
    def address(self) -> Address:
        """The hub's address."""
        ...

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        ...

    def open(self, wait_s: float = ..., *, patient: bool = False) -> None:
        """Connect. Raises `HubError`."""
        ...

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for messages on ``topics``."""
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
        """Hand a message over."""
        ...

    def wait_until_sent(self, all_but_bytes: int, timeout_s: float | None = None) -> bool:
        """Wait until at most this many bytes of messages are unacknowledged; return whether that is so."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class LinkFactory(Protocol):
    """A function that makes the link of a user of this name.

    ``connected`` is called when the link is connected, and is the place to subscribe.
    """

    def __call__(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> Link:
        """Return the link, which is not open yet."""
        ...
