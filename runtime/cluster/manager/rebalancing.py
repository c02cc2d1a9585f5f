"""Decide whether to move runs of steps, given the present throughput and the best one with measured speeds.

A move must be worth it: the gain has to be larger than a margin, for longer the smaller it is, and larger than the cost of
moving within a horizon. A gain that is still growing is waited for: the speeds are not measured yet. Every move makes the
next one harder for a while, so that speeds that go up and down do not make steps wander (hysteresis); but less so where a
worker's speed has changed by more than jitter explains. This is a function of figures: no clock, no cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

#: The least gain that is worth a move, and the least one after another move within `_REMEMBERED_S`; that doubles with
#: each further move. Where a worker's speed has since changed by more than the factor `_REAL_CHANGE`, the least gain is
#: `MARGIN` times `_HARDER` for each move.
MARGIN, _LATER_MARGIN, _REMEMBERED_S = 0.15, 0.65, 600.0
_REAL_CHANGE, _HARDER = 1.75, 1.5
#: A gain must last for this many seconds divided by it, within these bounds.
_PATIENCE_S, _LEAST_S, _MOST_S = 10.0, 6.0, 60.0
#: A gain this much larger than when it was first seen is another one: it must last from now on.
_GROWTH = 1.5
#: A move must gain more than it costs within this time. After a move, the next waits until times are measured again.
_HORIZON_S, _COOL_DOWN_S = 300.0, 15.0
#: If every worker is without an input for more than the rest of the time, the stream waits for its client.
_LEAST_OCCUPIED = 0.5
#: If fewer answers come than this part of what the measured times would give, the times are not what slows the stream.
_LEAST_EXPLAINED = 0.4

MoveVerdict = Literal["stay", "wait", "move"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The figures of a decision at ``now``, in seconds of the caller's clock.

    ``present`` and ``best`` are merits, the larger the better, such as inferences a second. ``cost_s`` are the seconds of
    the stream that a move costs, ``busy`` the part of time in which the busiest worker computes, and ``occupied`` that in
    which some worker has an input. ``explained`` are the answers that come, as a part of what the measured times would give.
    ``changed`` is the factor by which some worker's speed has changed since the last move.
    """

    now: float
    present: float
    best: float
    cost_s: float
    busy: float = 1.0
    occupied: float = 1.0
    explained: float = 1.0
    changed: float = 1.0

    @property
    def gain(self) -> float:
        """The gain of the best placement, as a fraction of the present merit.

        Only the time in which the busiest worker computes gets shorter; what it does besides, such as to send, stays.
        """
        return 1 / (1 - min(self.busy, self.explained, 1.0) * (1 - self.present / self.best)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRecord:
    """What a decision remembers: since when moving has been worth it, the gain then, and when the last moves were."""

    worth_since: float | None = None
    worth: float = 0.0
    moves: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision and its reason in words, with what to remember for the next."""

    verdict: MoveVerdict
    reason: str
    record: MoveRecord


def decide(outlook: Outlook, record: MoveRecord) -> Decision:
    """Decide whether to move now."""
    recent = tuple(at for at in record.moves if outlook.now - at < _REMEMBERED_S)
    margin = MARGIN if not recent else _LATER_MARGIN * 2.0 ** (len(recent) - 1)
    if outlook.changed > _REAL_CHANGE:
        margin = MARGIN * _HARDER ** len(recent)
    calm = replace(record, worth_since=None, moves=recent)
    gain = outlook.gain
    if outlook.occupied < _LEAST_OCCUPIED:
        reason = f"workers have inputs {outlook.occupied:.0%} of the time"
        return Decision(verdict="stay", reason=reason, record=calm)
    if outlook.explained < _LEAST_EXPLAINED:
        reason = f"only {outlook.explained:.0%} of the answers come that the measured times would give"
        return Decision(verdict="stay", reason=reason, record=calm)
    if gain < margin:
        return Decision(verdict="stay", reason=f"{gain:+.0%} is less than the margin of {margin:.0%}", record=calm)
    if gain * _HORIZON_S < outlook.cost_s:
        reason = f"moving costs {outlook.cost_s:.0f} s, more than {gain:+.0%} gains in {_HORIZON_S:.0f} s"
        return Decision(verdict="stay", reason=reason, record=calm)
    if recent and outlook.now - recent[-1] < _COOL_DOWN_S * 2 ** (len(recent) - 1):
        return Decision(verdict="stay", reason="the last move was just now", record=calm)
    since, worth = record.worth_since, record.worth
    if since is None or gain > _GROWTH * worth:
        since, worth = outlook.now, gain
    needed_s = min(_MOST_S, max(_LEAST_S, _PATIENCE_S / gain))
    if outlook.now - since < needed_s:
        reason = f"{gain:+.0%} must last for {needed_s:.0f} s"
        return Decision(verdict="wait", reason=reason, record=MoveRecord(worth_since=since, worth=worth, moves=recent))
    reason = f"{gain:+.0%} for {outlook.now - since:.0f} s, moving costs {outlook.cost_s:.1f} s"
    return Decision(verdict="move", reason=reason, record=MoveRecord(moves=(*recent, outlook.now)))
