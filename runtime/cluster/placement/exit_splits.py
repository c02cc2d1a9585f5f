"""End runs of steps at early exits, so that an inference may begin behind one, or end there.

Two runs on one worker share its memory; between them tensors go through the hub and the journal. So runs are cut only where
that is asked for. A group computes one sub-bundle at a time and is slow to change to another: its runs stay whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from hyps.runtime.bundle.exits import rest_start
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from hyps.runtime.cluster.placement.placement import Placement


def split_at_exits(manifest: Manifest, placement: Placement, numbers: Collection[int], groups: Collection[str]) -> Placement:
    """Return the placement with runs cut behind the exits of these numbers, from 1 on, but for runs on ``groups``."""
    stops = [rest_start(manifest, number) for number in sorted(numbers)]
    rows = [
        (part, homes, reason, run in placement.dealt)
        for run, homes, reason in zip(placement.runs, placement.homes, placement.reasons, strict=True)
        for part in ([run] if set(homes).intersection(groups) else _parts(manifest, run, stops))
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


def _parts(manifest: Manifest, run: range, stops: Sequence[int]) -> Iterator[range]:
    start = run.start
    for stop in stops:
        if start < stop < run.stop and boundary(manifest, range(stop, run.stop))[0]:
            yield range(start, stop)
            start = stop
    yield range(start, run.stop)
