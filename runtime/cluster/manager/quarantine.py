"""Set aside workers that come, go or change all the time: each change would bring new orders to every other worker.

A board with a bad link reconnects every few seconds at worst. A stolen credential can do so a thousand times a second, and
no placement would ever be made.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyps.runtime.cluster.protocol.messages import WorkerState

#: A worker may come or go this often at once, and then once in _REFILL_S seconds. A change of capacity counts as a tenth:
#: it disturbs others less, and a group's boards start one after the other.
_BURST, _REFILL_S, _CAPACITY_WEIGHT = 20, 5.0, 0.1
#: A worker is admitted again after it has sent no state for this long.
QUIET_S = 60.0


@dataclass(slots=True, kw_only=True)
class _Conduct:
    """The changes that a worker may still make, as of ``at``; while it is set aside, ``held`` is its newest state."""

    changes: float
    at: float
    held: WorkerState | None = None


class Quarantine:
    """The workers of one manager that change too often. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._conducts: dict[str, _Conduct] = {}

    def has(self, name: str) -> bool:
        """Return whether a worker is set aside."""
        return name in self._conducts and self._conducts[name].held is not None

    def note(self, name: str, state: WorkerState, now: float, *, only_capacity: bool = False) -> bool:
        """Note that a worker came, went or changed by this state; return False if that was once too often."""
        conduct = self._conducts.setdefault(name, _Conduct(changes=_BURST, at=now))
        refilled = min(_BURST, conduct.changes + (now - conduct.at) / _REFILL_S)
        conduct.changes = refilled - (_CAPACITY_WEIGHT if only_capacity else 1)
        conduct.at = now
        if conduct.changes < 0:
            conduct.held = state
        return conduct.changes >= 0

    def hold(self, name: str, state: WorkerState, now: float) -> None:
        """Keep a state of a worker that is set aside; it is to be quiet from now on."""
        self._conducts[name].held, self._conducts[name].at = state, now

    def released(self, now: float) -> dict[str, WorkerState]:
        """Return the last states of the workers that have been quiet for long enough, and admit these workers."""
        quiet = {
            name: each.held for name, each in self._conducts.items() if each.held is not None and now > each.at + QUIET_S
        }
        for name in quiet:
            del self._conducts[name]
        return quiet
