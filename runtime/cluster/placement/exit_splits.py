"""End runs of steps at early exits, so that an inference may begin behind one, or end there.

Two runs on one worker share its memory; between them tensors go through the hub. A group computes one sub-bundle at a time
and is slow to change to another, so that its runs stay whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from hyps.runtime.cluster.placement.placement import Placement


def split_at_exits(manifest: Manifest, placement: Placement, groups: Collection[str]) -> Placement:
    """Return the placement with every run cut behind the exits within it, but for runs on ``groups``."""
    rows = [
        (part, homes, reason, run in placement.dealt)
        for run, homes, reason in zip(placement.runs, placement.homes, placement.reasons, strict=True)
        for part in ([run] if set(homes).intersection(groups) else _parts(manifest, run))
    ]
    if len(rows) == len(placement.runs):
        return placement
    return replace(
        placement,
        runs=tuple(run for run, *_ in rows),
        homes=tuple(homes for _, homes, *_ in rows),
        reasons=tuple(reason for _, _, reason, _ in rows),
        dealt=frozenset(run for run, *_, is_dealt in rows if is_dealt),
        numbers=(),
    )


def _parts(manifest: Manifest, run: range) -> Iterator[range]:
    start = run.start
    for each in manifest.exits[:-1]:
        stop = each.after_step + 1
        if start < stop < run.stop and boundary(manifest, range(stop, run.stop))[0]:
            yield range(start, stop)
            start = stop
    yield range(start, run.stop)
