"""Describe a placement to the operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.placement import Placement


def describe_placement(
    manifest: Manifest, placement: Placement, assigned: Mapping[str, Mapping[int, Manifest]]
) -> Iterator[str]:
    """Yield a line for the operator for each sub-bundle on each worker."""
    rows = zip(placement.numbers, placement.runs, placement.homes, placement.reasons, strict=True)
    for number, run, homes, reason in rows:
        steps = [manifest.steps[index].name for index in run]
        names = steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        for home in homes:
            part = assigned[home][number]
            weights = sum(step.weights.size_bytes for step in part.steps if step.weights)
            pinned = sum(step.pinned_bytes for step in part.steps)
            stay = "all stay in memory" if pinned == weights else f"{pinned / 1e6:.1f} MB stay in memory"
            yield f"sub-bundle {number} on {home}: {names}; {weights / 1e6:.1f} MB of weights, {stay}; {reason}"
