"""Forecast a placement's latency, in seconds an inference, and its throughput in a stream, in inferences a second.

The latency is that of the schedule: a sub-bundle begins when its inputs are there and its worker is free, and every tensor
that crosses takes the link twice, to the hub and from it (Kaboubi, section 4.3.1). The throughput is that of the busiest
worker, or of the link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from hyps.runtime.cluster.placement.partitioner import LINK_BYTES_PER_S, WorkerCapacity, step_cost
from hyps.runtime.cluster.placement.placement import Placement

#: The time of a message through hub and manager, besides that for its bytes (measured: 0.2 to 0.3 ms for 100 KB on
#: loopback).
HOP_S = 0.5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The expected seconds of one inference, and inferences a second.

    ``computed_per_s`` is the throughput without the link's bound: that of the ``busiest`` worker. ``runs_s`` are the seconds
    between two inputs of each run, with all of its homes.
    """

    latency_s: float
    throughput_per_s: float
    computed_per_s: float
    busiest: str
    runs_s: tuple[float, ...]


def forecast(
    manifest: Manifest,
    placement: Placement,
    assigned: Mapping[str, Mapping[int, Manifest]],
    workers: Iterable[WorkerCapacity],
    link_bytes_per_s: float = LINK_BYTES_PER_S,
) -> Forecast:
    """Return the forecast of a placement; ``assigned`` are its sub-bundles as `placement.assign` returns them."""
    capacities = {worker.name: worker for worker in workers}
    available_s = dict.fromkeys(manifest.inputs, 0.0)
    free_s = dict.fromkeys(capacities, 0.0)
    busy_s = dict.fromkeys(capacities, 0.0)
    crossing_bytes = 0
    runs_s: list[float] = []

    def transfer_s(nbytes: int) -> float:
        """Return the seconds between a worker and the manager: the hub forwards chunk by chunk while it receives."""
        return nbytes / link_bytes_per_s + 2 * HOP_S

    for number, run, homes in zip(placement.numbers, placement.runs, placement.homes, strict=True):
        inputs, outputs = boundary(manifest, run)
        input_bytes, output_bytes = (sum(manifest.tensors[name].nbytes for name in names) for names in (inputs, outputs))
        is_dealt = run in placement.dealt
        crossing_bytes += (1 if is_dealt else len(homes)) * (input_bytes + output_bytes)
        ready_s = max((available_s[name] for name in inputs), default=0.0) + transfer_s(input_bytes)
        seconds = {home: _compute_s(assigned[home][number], capacities[home]) for home in homes}
        shared_s = 1 / sum(1 / each for each in seconds.values())
        ends_s = []
        for home in homes:
            ends_s.append(max(free_s[home], ready_s) + seconds[home])
            busy_s[home] += shared_s if is_dealt else seconds[home]
        for home in [min(seconds, key=seconds.__getitem__)] if is_dealt else homes:
            free_s[home] = max(free_s[home], ready_s) + seconds[home]
        runs_s.append(shared_s if is_dealt else min(seconds.values()))
        available_s.update(dict.fromkeys(outputs, min(ends_s) + transfer_s(output_bytes)))
    latency_s = max(available_s[output.name] for output in manifest.outputs)
    busiest = max(busy_s, key=busy_s.__getitem__)
    return Forecast(
        latency_s=latency_s,
        throughput_per_s=1 / max(busy_s[busiest], crossing_bytes / link_bytes_per_s),
        computed_per_s=1 / busy_s[busiest],
        busiest=busiest,
        runs_s=tuple(runs_s),
    )


def streamed_bytes(part: Manifest) -> int:
    """Return the bytes that storage reads for a sub-bundle's weights in every inference."""
    return sum(step.read_bytes for step in part.steps)


def _compute_s(part: Manifest, worker: WorkerCapacity) -> float:
    macs = sum(step_cost(part, step) for step in part.steps)
    return macs / worker.macs_per_s + streamed_bytes(part) / worker.storage_bytes_per_s
