"""Acknowledgements that a manager holds back, so that the hub keeps what is not written down yet."""

from __future__ import annotations

from collections.abc import Callable, Hashable

#: A manager's chunks that are not acknowledged yet: beyond it the oldest are, which is safe too, as leases end.
UNACKNOWLEDGED = 256


class Acknowledgements:
    """Those of messages that belong together, until what they carry is written down; at most ``most`` are held back."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._held: dict[Hashable, list[Callable[[], None]]] = {}

    def hold(self, key: Hashable, acknowledge: Callable[[], None]) -> None:
        """Hold one back; beyond the most, the oldest are given."""
        self._held.setdefault(key, []).append(acknowledge)
        self._count += 1
        while self._count > self._most:
            self.give(next(iter(self._held)))

    def give(self, key: Hashable) -> None:
        """Give all of them."""
        for acknowledge in self._held.pop(key, ()):
            self._count -= 1
            acknowledge()
