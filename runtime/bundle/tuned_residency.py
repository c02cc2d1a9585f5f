"""Decide what stays in memory of a tuned bundle: its steps have other weights files and other peaks than as compiled.

The planner's estimates of time are not known here. So as much is pinned as the planner pinned, and the rest of the budget
goes to reading ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.pages import HUGE_SLACK_BYTES
from hyps.runtime.bundle.residency import (
    OpenSessions,
    Residency,
    alternating_residency,
    pin_highest_peaks,
    read_ahead,
)
from hyps.runtime.library_memory import library_memory


def tuned_residency(manifest: Manifest, peaks_bytes: Sequence[int], weights_bytes: Sequence[int]) -> Residency:
    """Return the residency of a schedule whose steps have these peaks, within the budget, and these weights files.

    The peaks are without pinned weights, open sessions and reading ahead.
    """
    sessions = _sessions(manifest, peaks_bytes)
    budget = manifest.budget_bytes
    slack = HUGE_SLACK_BYTES if max(sessions.base_bytes) + HUGE_SLACK_BYTES <= budget else 0
    planned = sum(step.pinned_bytes for step in manifest.steps)
    limit = sum(weights_bytes) if not manifest.streams_weights else planned
    pinned = pin_highest_peaks(weights_bytes, sessions.base_bytes, budget - slack, limit)
    ahead = read_ahead(weights_bytes, sessions.base_bytes, pinned, budget - slack)
    return alternating_residency(sessions, pinned, ahead, slack_bytes=slack)


def _sessions(manifest: Manifest, peaks_bytes: Sequence[int]) -> OpenSessions:
    """Return the open sessions: those that the planner kept open, if they fit next to the largest step; else none."""
    open_bytes = _open_bytes(manifest)
    fits = max(peaks_bytes) + open_bytes <= manifest.budget_bytes
    return OpenSessions(
        stay_open=tuple(fits and step.session.stays_open for step in manifest.steps),
        base_bytes=tuple(each + (open_bytes if fits else 0) for each in peaks_bytes),
    )


def _open_bytes(manifest: Manifest) -> int:
    """Return what the open sessions of a bundle that hypsc wrote hold: what its peaks count and nothing else explains.

    A peak may be that of the start, and then says nothing; where all are, the result is too large, which is safe.
    """
    if not any(step.session.stays_open for step in manifest.steps):
        return 0
    pinned = sum(step.pinned_bytes for step in manifest.steps)
    slack = HUGE_SLACK_BYTES if manifest.huge_pages else 0
    start = library_memory(manifest.target.onnxruntime, manifest.target.planned_interface).start_bytes
    above = [step for step in manifest.steps if step.peak_bytes > start] or manifest.steps
    return max(
        step.peak_bytes
        - (step.alone_bytes + manifest.arena_growth_bytes(step))
        - (pinned - step.pinned_bytes)
        - (step.ahead_bytes + slack)
        for step in above
    )
