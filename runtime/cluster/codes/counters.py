"""Count what codes do for a manager: groups decoded, and workers whose answers were late, wrong, or withdrawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: The most workers that are counted by name: a stolen credential may make up many.
_MOST_NAMES = 1000


class CodeCounters:
    """The counts since the manager's start: groups decoded by code, and by worker, late, wrong and withdrawn answers.

    ``withdrawn`` counts answers that a worker did not send, as nobody needed them; ``spared`` those of them that it did not
    even compute.
    """

    def __init__(self) -> None:
        self.by_code: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.withdrawn: Counter[str] = Counter()
        self.spared: Counter[str] = Counter()

    def decoded(self, code: str, late: Iterable[str]) -> None:
        """Count a group that was decoded, and the workers that it did not wait for."""
        self.by_code[code] += 1
        for worker in late:
            _count(self.late, worker)

    def dropped(self, worker: str, *, computed: bool) -> None:
        """Count an answer that a worker does not send."""
        _count(self.withdrawn, worker)
        if not computed:
            _count(self.spared, worker)


def _count(counts: Counter[str], worker: str) -> None:
    if worker in counts or len(counts) < _MOST_NAMES:
        counts[worker] += 1
