"""Count what codes do for a manager: groups decoded, workers too late, and workers whose answers were wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: The most workers that are counted by name: a stolen credential may make up many.
_MOST_NAMES = 1000


class CodeCounters:
    """The counts since the manager's start: groups decoded by code, and by worker, late and wrong answers."""

    def __init__(self) -> None:
        self.by_code: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def decoded(self, code: str, late: Iterable[str]) -> None:
        """Count a group that was decoded, and the workers that it did not wait for."""
        self.by_code[code] += 1
        for worker in late:
            if worker in self.late or len(self.late) < _MOST_NAMES:
                self.late[worker] += 1
