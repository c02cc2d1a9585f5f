"""Hold acknowledgements back until messages are written down, so that the hub keeps the messages until then."""

from __future__ import annotations

from collections.abc import Callable, Hashable

#: The most chunks that a manager leaves unacknowledged. Beyond it, the oldest are acknowledged: that is safe, as the leases
#: that they answer end and are given out again.
UNACKNOWLEDGED = 256


class Acknowledgements:
    """At most ``limit`` acknowledgements that are held back, grouped by what their messages carry."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0
        self._held: dict[Hashable, list[Callable[[], None]]] = {}

    def hold(self, key: Hashable, acknowledge: Callable[[], None]) -> None:
        """Hold an acknowledgement back; beyond the limit, give the oldest."""
        self._held.setdefault(key, []).append(acknowledge)
        self._count += 1
        while self._count > self._limit:
            self.give(next(iter(self._held)))

    def give(self, key: Hashable) -> None:
        """Give all acknowledgements that are held back for ``key``."""
        for acknowledge in self._held.pop(key, ()):
            self._count -= 1
            acknowledge()
