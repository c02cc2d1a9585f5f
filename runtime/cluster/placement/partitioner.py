"""Partition a bundle's steps over workers: in runs, and shards of an operator side by side (Kaboubi, section 4.3.2.2).

Runs are chosen so that the slowest worker takes as little time as possible, as a stream of inputs waits for it. Steps that
need nothing of each other are spread over all workers if that is worth sending their inputs to several.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.bundle.sub_bundle import boundary

#: What a worker's process holds in addition to the executor: MQTT, TLS, HTTP (measured: 9 MB), and chunks under way.
CLUSTER_BYTES = 16_000_000
#: Fast Ethernet, as on a Raspberry Pi 3: 94 Mbit/s of payload.
LINK_BYTES_PER_S = 11.75e6
#: Shards are spread if their weights are at least this many times the bytes sent to spread them.
_WORTHWHILE_RATIO = 8
#: Bytes that cost as much as one multiply-add: activations are moved, not multiplied.
_BYTES_PER_MAC = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCapacity:
    """One worker's capacity: bytes for its process, multiply-adds and bytes from storage a second.

    ``safe``: it may see the model's inputs. ``group``: the number of workers that it stands for, 0 for one that computes
    itself; a group is to hold one run of steps (`hyps.runtime.cluster.worker.group`).
    """

    name: str
    memory_bytes: int
    macs_per_s: int
    storage_bytes_per_s: int = 80_000_000
    safe: bool = True
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHome:
    """The worker that gets one step, and the reason in words for the operator."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrefixPartition:
    """The best partition of the first steps over the first workers.

    ``slowest_s``: the time of the slowest worker; ``crossing_bytes``: what is sent between workers; ``starts``: the position
    at which each worker's run begins.
    """

    slowest_s: float
    crossing_bytes: int
    starts: tuple[int, ...]

    @property
    def cost(self) -> tuple[float, int]:
        """The cost to minimise: the slowest worker's time, then the bytes that cross."""
        return self.slowest_s, self.crossing_bytes


def step_cost(manifest: Manifest, step: Step) -> int:
    """Return a step's multiply-adds, or the cost of moving its boundary tensors if that is larger."""
    crossing = [manifest.tensors[name] for name in (*step.inputs, *step.outputs)]
    return max(step.multiply_adds, sum(record.nbytes for record in crossing) // _BYTES_PER_MAC, 1)


def parallel_groups(manifest: Manifest, workers: Sequence[WorkerCapacity]) -> Iterable[range]:
    """Yield the runs of steps that need nothing of each other and are worth spreading."""
    steps, start = manifest.steps, 0
    while start < len(steps) and len(workers) > 1:
        stop, made = start, set[str]()
        while stop < len(steps) and not made.intersection(steps[stop].inputs):
            made.update(steps[stop].outputs)
            stop += 1
        group = range(start, stop)
        if len(group) > 1 and _is_worth_spreading(manifest, group, workers):
            yield group
        start = max(stop, start + 1)


def _is_worth_spreading(manifest: Manifest, group: range, workers: Sequence[WorkerCapacity]) -> bool:
    """Return whether spreading a group saves more time than sending takes, or moves few bytes for many weights."""
    inputs, outputs = boundary(manifest, group)
    count = min(len(group), len(workers))
    sent_bytes = count * sum(manifest.tensors[name].nbytes for name in inputs)
    sent_bytes += sum(manifest.tensors[name].nbytes for name in outputs)
    macs = sum(step_cost(manifest, manifest.steps[index]) for index in group)
    alone_s = macs / max(worker.macs_per_s for worker in workers)
    saved_s = alone_s * (1 - 1 / count)
    weight_bytes = sum(manifest.steps[index].weight_bytes for index in group)
    return weight_bytes >= _WORTHWHILE_RATIO * sent_bytes or saved_s > sent_bytes / LINK_BYTES_PER_S


def place_in_parallel(
    manifest: Manifest, group: range, workers: Sequence[WorkerCapacity], runnable: Mapping[str, set[int]]
) -> dict[int, StepHome]:
    """Give each step of a group to the worker that finishes it first."""
    busy_s = dict.fromkeys((worker.name for worker in workers), 0.0)
    names: dict[int, str] = {}
    for index in group:
        macs = step_cost(manifest, manifest.steps[index])
        fits = [worker for worker in workers if index in runnable[worker.name]]
        best = min(fits, key=lambda worker: (busy_s[worker.name] + macs / worker.macs_per_s, worker.name))
        names[index] = best.name
        busy_s[best.name] += macs / best.macs_per_s
    ordered = sorted(names.values())  # so that each worker's shards lie together
    if all(runnable[name].issuperset(group) for name in ordered):
        names = dict(zip(group, ordered, strict=True))
    reason = f"one of {len(group)} that run side by side"
    return {index: StepHome(worker=name, reason=reason) for index, name in names.items()}


def place_in_sequence(
    manifest: Manifest, steps: Sequence[int], workers: Sequence[WorkerCapacity], runnable: Mapping[str, set[int]]
) -> dict[int, StepHome]:
    """Give steps to workers in runs, one run a worker.

    The slowest worker takes the least time and, among such partitions, the fewest bytes cross.
    """
    costs = [0, *itertools.accumulate(step_cost(manifest, manifest.steps[index]) for index in steps)]
    best = _best_partition(manifest, steps, costs, workers, runnable)
    if best is None:  # each step fits some worker, but not in this order of workers
        return _fallback_placement(steps, workers, runnable)
    bounds = [*best.starts, len(steps)]
    homes: dict[int, StepHome] = {}
    for worker, (start, stop) in zip(workers, itertools.pairwise(bounds), strict=True):
        fraction = (costs[stop] - costs[start]) / max(costs[-1], 1)
        for position in range(start, stop):
            homes[steps[position]] = StepHome(worker=worker.name, reason=f"{fraction:.0%} of the work in sequence")
    return homes


def _best_partition(
    manifest: Manifest,
    steps: Sequence[int],
    costs: Sequence[int],
    workers: Sequence[WorkerCapacity],
    runnable: Mapping[str, set[int]],
) -> _PrefixPartition | None:
    """Return the best partition of all steps over all workers in their order, or None if there is none.

    ``costs[n]`` is the cost of the first n steps. Dynamic programming over prefixes of the steps, worker by worker.
    """
    crossing = [sum(manifest.tensors[name].nbytes for name in manifest.steps[index].inputs) for index in steps]
    weights = [0, *itertools.accumulate(manifest.steps[index].weight_bytes for index in steps)]
    best: list[_PrefixPartition | None] = [_PrefixPartition(slowest_s=0.0, crossing_bytes=0, starts=())]
    best += [None] * len(steps)
    for worker in workers:
        room = worker.memory_bytes - CLUSTER_BYTES - max(step.alone_bytes for step in manifest.steps)
        extended = [_without_steps(prefix, stop) for stop, prefix in enumerate(best)]
        for stop in range(1, len(steps) + 1):
            for start in range(stop - 1, -1, -1):
                is_one_run = not worker.group or start == stop - 1 or steps[start] + 1 == steps[start + 1]
                if steps[start] not in runnable[worker.name] or not is_one_run:
                    break
                if (prefix := best[start]) is None:
                    continue
                seconds = (costs[stop] - costs[start]) / worker.macs_per_s
                streamed = max(0, weights[stop] - weights[start] - max(room, 0))
                seconds += streamed / worker.storage_bytes_per_s  # read again for every input
                candidate = _PrefixPartition(
                    slowest_s=max(prefix.slowest_s, seconds),
                    crossing_bytes=prefix.crossing_bytes + (crossing[start] if start else 0),
                    starts=(*prefix.starts, start),
                )
                known = extended[stop]
                if known is None or candidate.cost < known.cost:
                    extended[stop] = candidate
        best = extended
    return best[-1]


def _without_steps(prefix: _PrefixPartition | None, stop: int) -> _PrefixPartition | None:
    """Return a prefix extended by a worker that gets no steps."""
    if prefix is None:
        return None
    return _PrefixPartition(slowest_s=prefix.slowest_s, crossing_bytes=prefix.crossing_bytes, starts=(*prefix.starts, stop))


def _fallback_placement(
    steps: Sequence[int], workers: Sequence[WorkerCapacity], runnable: Mapping[str, set[int]]
) -> dict[int, StepHome]:
    """Give each step to the worker with most memory.

    Steps that fit only groups go to groups, each run to a group of its own if there are enough.
    """
    homes: dict[int, StepHome] = {}
    for index in steps:
        fits = [worker for worker in workers if index in runnable[worker.name]]
        single = [worker for worker in fits if not worker.group]
        if single:
            largest = max(single, key=lambda worker: worker.memory_bytes)
            homes[index] = StepHome(worker=largest.name, reason="the worker with most memory")
        else:
            before = homes[index - 1].worker if index - 1 in homes else ""
            taken = {home.worker for home in homes.values()}
            best = max(fits, key=lambda worker: (worker.name == before, worker.name not in taken, worker.memory_bytes))
            homes[index] = StepHome(worker=best.name, reason="it fits only groups")
    return homes
