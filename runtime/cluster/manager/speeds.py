"""Measure how fast workers really are, as a claim may be false: a credential may be stolen, or a board be busy.

The measure bounds the claim from above. It is the best of the last answers, less the time that the tensors take on the wire
and a second, times eight: a board whose claim is honest, but that also does other things, is placed by its claim.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from hyps.runtime.cluster.planning.step_cost import LINK_BYTES_PER_S
from hyps.runtime.cluster.protocol.frames import Key

#: The number of answers that are compared, the seconds of each that prove nothing, and the factor by which a claim may be
#: above what was measured.
_ANSWERS, _SLACK_S, _ALLOWANCE = 5, 1.0, 8
_REMEMBERED = 1000
#: A bound changes only by more than this factor, as each change of a bound places the bundle again.
_STEP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One lease's work: multiply-adds, bytes that travel, and the seconds in which weights are read from storage."""

    macs: int
    moved_bytes: int
    read_s: float


@dataclass(slots=True, kw_only=True)
class _Record:
    """What one worker has done: its work under way, when it last answered, its rates, and the bound on its claim."""

    under_way: OrderedDict[Key, tuple[Work, float]] = field(default_factory=OrderedDict)
    answered_at: float = 0.0
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_ANSWERS))
    bound: int | None = None


class MeasuredSpeeds:
    """The measured speeds of one manager's workers, in multiply-adds a second. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def bound(self, worker: str) -> int | None:
        """Return the most that a worker may claim, or None if nothing speaks against its claim."""
        return self._records[worker].bound if worker in self._records else None

    def sent(self, worker: str, key: Key, work: Work, now: float) -> None:
        """Note that a worker is asked to do this work."""
        under_way = self._records.setdefault(worker, _Record()).under_way
        under_way[key] = work, now
        if len(under_way) > _REMEMBERED:  # some are never answered, or too late to count
            under_way.popitem(last=False)

    def answered(self, worker: str, key: Key, claim: int, now: float) -> bool:
        """Note an answer of a worker that claims this speed; return whether its bound has changed."""
        record = self._records.get(worker)
        if record is None or key not in record.under_way:
            return False
        work, sent_at = record.under_way.pop(key)
        seconds = now - max(sent_at, record.answered_at) - work.moved_bytes / LINK_BYTES_PER_S - work.read_s - _SLACK_S
        record.answered_at = now
        record.rates.append(work.macs / seconds if seconds > 0 else math.inf)
        if len(record.rates) < _ANSWERS:
            return False
        found, before = _ALLOWANCE * max(record.rates), record.bound
        if before is None and found < claim:
            record.bound = max(1, int(found))
        elif before is not None and found > before * _STEP:
            record.bound = int(found) if found < claim else None
        elif before is not None and found < before / _STEP:
            record.bound = max(1, int(found))
        return record.bound != before

    def forget(self, worker: str) -> None:
        """Forget a worker that is gone: a new process may be another machine."""
        self._records.pop(worker, None)
