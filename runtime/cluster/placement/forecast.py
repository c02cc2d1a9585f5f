"""What a placement is expected to do: seconds of one inference, and inferences a second of a stream.

The latency is that of the schedule: a share begins when its inputs are there and its worker is free, every tensor that
crosses takes the link twice, to the hub and from it (Kaboubi, section 4.3.1). The throughput is that of whoever has most to
do, worker or link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from hyps.runtime.cluster.placement.partitioner import LINK_BYTES_PER_S, Offer, work
from hyps.runtime.cluster.placement.placement import Placement

#: A message's way through hub and manager besides its bytes' (measured: 0.2 to 0.3 ms for 100 KB on loopback).
HOP_S = 0.5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds of one inference; inferences a second."""

    latency_s: float
    throughput_per_s: float


def forecast(
    manifest: Manifest, placement: Placement, parts: Mapping[str, Mapping[int, Manifest]], offers: Iterable[Offer]
) -> Forecast:
    """Of ``placement``, whose shares are ``parts`` (`hyps.runtime.cluster.placement.placement.assign`)."""
    able = {offer.name: offer for offer in offers}
    there = dict.fromkeys(manifest.inputs, 0.0)
    free = dict.fromkeys(able, 0.0)
    busy = dict.fromkeys(able, 0.0)
    crossing = 0
    for number, (run, homes) in enumerate(zip(placement.runs, placement.homes, strict=True)):
        reads, makes = boundary(manifest, run)
        sent, made = (sum(manifest.tensors[name].nbytes for name in names) for names in (reads, makes))
        crossing += len(homes) * (sent + made)
        ready_s = max((there[name] for name in reads), default=0.0) + _way_s(sent)
        ends = []
        for home in homes:
            seconds = _seconds(parts[home][number], able[home])
            free[home] = max(free[home], ready_s) + seconds
            busy[home] += seconds
            ends.append(free[home])
        there.update(dict.fromkeys(makes, min(ends) + _way_s(made)))
    latency_s = max(there[output.name] for output in manifest.outputs)
    return Forecast(latency_s=latency_s, throughput_per_s=1 / max(*busy.values(), crossing / LINK_BYTES_PER_S))


def _way_s(nbytes: int) -> float:
    """Seconds between a worker and the manager: the hub sends on while it receives, chunk by chunk."""
    return nbytes / LINK_BYTES_PER_S + 2 * HOP_S


def streamed_bytes(part: Manifest) -> int:
    """Weights that a share reads for every inference."""
    return sum(step.weights.size_bytes - step.pinned_bytes for step in part.steps if step.weights)


def _seconds(part: Manifest, offer: Offer) -> float:
    macs = sum(work(part, step) for step in part.steps)
    return macs / offer.macs_per_s + streamed_bytes(part) / offer.storage_bytes_per_s
