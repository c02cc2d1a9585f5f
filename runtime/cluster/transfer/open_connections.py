"""Bound a server's open connections: how many one owner has, how many there are, and for how long.

An address that opens too many loses its oldest ones, rather than the newest: whoever has something to ask asks at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Open:
    """An open connection: whose it is, since when, and how to close it."""

    owner: str
    since: float
    close: Callable[[], None]


class OpenConnections:
    """The open connections of one kind at one server, oldest first; times are seconds of the caller's clock. Thread-safe.

    An owner, an address or a user, has ``most_of_owner`` of the ``most``. With ``longest_s``, none is open for longer.
    """

    def __init__(self, *, most_of_owner: int, most: int, longest_s: float | None = None) -> None:
        self._most_of_owner, self._most, self._longest_s = most_of_owner, most, longest_s
        self._open: OrderedDict[Hashable, _Open] = OrderedDict()
        self._owned: defaultdict[str, OrderedDict[Hashable, None]] = defaultdict(OrderedDict)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Hashable, owner: str, close: Callable[[], None], now: float) -> None:
        """Add a connection, and close the oldest one of its owner, or of the owner of most, if these are too many."""
        with self._lock:
            self._remove(connection)
            self._open[connection] = _Open(owner, now, close)
            self._owned[owner][connection] = None
            if len(self._owned[owner]) > self._most_of_owner:
                self._close(next(iter(self._owned[owner])))
            if len(self._open) > self._most:
                largest = max(self._owned.values(), key=len)
                self._close(next(iter(largest)))

    def remove(self, connection: Hashable) -> None:
        """Forget a connection that has closed, or is now of another kind."""
        with self._lock:
            self._remove(connection)

    def lapse(self, now: float) -> None:
        """Close the connections that have been open for too long."""
        with self._lock:
            while self._longest_s is not None and self._open:
                oldest = next(iter(self._open))
                if now - self._open[oldest].since <= self._longest_s:
                    return
                self._close(oldest)

    def _remove(self, connection: Hashable) -> _Open | None:
        if (known := self._open.pop(connection, None)) is None:
            return None
        self._owned[known.owner].pop(connection)
        if not self._owned[known.owner]:
            del self._owned[known.owner]
        return known

    def _close(self, connection: Hashable) -> None:
        known = self._remove(connection)
        assert known
        with suppress(OSError):  # it is closed already
            known.close()
