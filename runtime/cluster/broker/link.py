"""What a manager and a client need of a hub: a connection of their own, or a part of one that they share with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hyps.runtime.cluster.broker.join import Address

#: Called with topic, payload, and a function that acknowledges the message.
Receiver = Callable[[str, bytes, Callable[[], None]], None]


class Link(Protocol):
    """One user's way to the hub; see `hyps.runtime.cluster.broker.connection.Connection`."""

    @property
    def address(self) -> Address:
        """Where the hub is."""
        ...

    @property
    def connected(self) -> bool:
        """There is a connection now."""
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

    def close(self) -> None:
        """Take leave."""
        ...


class Linker(Protocol):
    """Makes a link for a user of this name; ``connected`` is called when it is there, and is the place to subscribe."""

    def __call__(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> Link:
        """The link, which is still to be opened."""
        ...
