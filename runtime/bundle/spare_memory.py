"""Decide what stays in memory, in addition to the plan, where a process turns out to need less than was predicted.

A prediction holds for every machine and is therefore too large on most: an arena has free places that no activation ever
touched, and a processor runs code of its own. The process knows its peak after inferences by the plan. Every step may then
take more than the plan gives it, by what is missing from the predicted peak: no peak exceeds the prediction then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hyps.runtime.bundle.exits import likely_exits, step_reach
from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.residency import (
    OpenSessions,
    Residency,
    StepMemory,
    alternating_residency,
    held_back,
    open_sessions,
    pin_highest_peaks,
    read_ahead,
)

#: What the peak of later inferences may be above that of the first: code that runs late, and pages of the heap.
SPARED_MARGIN_BYTES = 1_000_000
#: With huge pages the peak also varies by so much from run to run (`hyps.runtime.device.process_memory`).
SPARED_HUGE_MARGIN_BYTES = 4_000_000
#: With less to spare nothing changes: sessions would be opened again for little.
LEAST_BYTES = 250_000
#: An open session takes at most these bytes, these for each operator, and its model so often (passes/calibration.toml).
_SESSION_BYTES, _OPERATOR_BYTES, _MODEL_COPIES = 262_144, 8_192, 2
#: The limits to try for pinned weights are multiples of this part of all weights.
_PARTS = 20
#: The additional cost of a byte that is read while nothing computes.
_WAITING = 2


def spare_bytes(manifest: Manifest, peak_bytes: int) -> int:
    """Return the bytes that a process whose peak was ``peak_bytes`` may take in addition; 0 where they are too few."""
    margin = SPARED_MARGIN_BYTES + (SPARED_HUGE_MARGIN_BYTES if manifest.huge_pages else 0)
    spare = max(step.peak_bytes for step in manifest.steps) - peak_bytes - margin
    return spare if spare >= LEAST_BYTES else 0


def enlarged_steps(manifest: Manifest, spare: int) -> tuple[Step, ...]:
    """Return the steps with as much in memory as fits into ``spare`` more bytes than the plan gives each.

    The peaks are counted as if the plan had given every step as much as the largest. Sessions stay open first. The rest is
    for pinned weights and for reading ahead, as little as possible of which is left to be read while nothing computes.
    """
    steps = manifest.steps
    budget = max(step.peak_bytes for step in steps) + spare
    sessions = _sessions(steps, _bases(manifest), budget)
    weights, reach = [_weights_bytes(step) for step in steps], step_reach(manifest.exits, len(steps))
    found = min(_residencies(manifest, weights, sessions, budget, reach), key=lambda each: _cost(weights, each, reach))
    return tuple(
        msgspec.structs.replace(
            step,
            pinned_bytes=stays.pinned_bytes,
            ahead_bytes=stays.ahead_bytes,
            peak_bytes=stays.peak_bytes,
            session=msgspec.structs.replace(step.session, stays_open=stays.session_stays_open),
        )
        for step, stays in zip(steps, found.steps, strict=True)
    )


def _weights_bytes(step: Step) -> int:
    """Return the bytes of the weights that the runtime holds itself."""
    return 0 if step.session.is_stock else step.weights_file_bytes


def _bases(manifest: Manifest) -> list[int]:
    """Return the largest predicted peak, less what the plan holds for each step besides it and its open sessions."""
    steps = manifest.steps
    largest, pinned = max(step.peak_bytes for step in steps), sum(step.pinned_bytes for step in steps)
    slack = HUGE_SLACK_BYTES if manifest.huge_pages else 0
    return [largest - (pinned - step.pinned_bytes) - step.ahead_bytes - slack for step in steps]


def _sessions(steps: Sequence[Step], bases: Sequence[int], budget_bytes: int) -> OpenSessions:
    """Return the open sessions: the planned ones, whose memory the bases count, and more."""
    groups = [None, *(step.session.group or None for step in steps), None]
    memories = [
        StepMemory(
            alone_bytes=base,
            weights_bytes=_weights_bytes(step),
            session_bytes=0 if step.session.stays_open or step.rows else _session_bytes(step),
            shares_session=own is not None and own in (before, after),
        )
        for step, base, before, own, after in zip(steps, bases, groups, groups[1:], groups[2:], strict=False)
    ]
    return open_sessions(memories, budget_bytes)


def _session_bytes(step: Step) -> int:
    return _SESSION_BYTES + _OPERATOR_BYTES * len(step.operators) + _MODEL_COPIES * step.model.size_bytes


def _residencies(
    manifest: Manifest, weights: Sequence[int], sessions: OpenSessions, budget_bytes: int, reach: Sequence[float]
) -> Iterator[Residency]:
    """Yield what may stay in memory: more and more pinned weights, of steps that most inferences run."""
    slack, exits = HUGE_SLACK_BYTES if manifest.huge_pages else 0, [*likely_exits(reach)]
    room, total = budget_bytes - slack, sum(weights)
    for part in range(_PARTS + 1):
        pinned = pin_highest_peaks(weights, sessions.base_bytes, room, total * part // _PARTS, reach)
        ahead = read_ahead(weights, sessions.base_bytes, pinned, room)
        for each in (held_back(weights, pinned, ahead, exits), [0] * len(weights)):
            yield alternating_residency(sessions, pinned, each, slack_bytes=slack)


def _cost(weights: Sequence[int], residency: Residency, reach: Sequence[float]) -> float:
    """Return the bytes that an inference reads in the mean; more for those that are not read ahead."""
    cost, steps = 0.0, residency.steps
    for index, (size, step) in enumerate(zip(weights, steps, strict=True)):
        streamed = size - step.pinned_bytes
        cost += reach[index] * (streamed + _WAITING * max(0, streamed - steps[index - 1].ahead_bytes))
    return cost
