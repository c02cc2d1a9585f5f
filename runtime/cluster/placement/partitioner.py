"""How steps are dealt out to workers: in runs that follow each other, and shards side by side (Kaboubi, section 4.3.2.2).

The runs are such that the slowest worker takes as little time as possible: that is what a stream of inputs waits for. Steps
that need nothing of each other are spread over all workers where that is worth sending their inputs to several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.bundle.sub_bundle import boundary

#: What a worker's process holds besides the executor: MQTT, TLS, HTTP (measured: 9 MB), and chunks under way.
CLUSTER_BYTES = 16_000_000
#: Fast Ethernet, as on a Raspberry Pi 3: 94 Mbit/s of payload.
LINK_BYTES_PER_S = 11.75e6
#: Shards are spread when their weights are so many times what is sent for it.
_WORTH = 8
#: Bytes that count as one multiply-add: activations are moved, not multiplied.
_BYTES_PER_MAC = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker has: bytes for its process, multiply-adds and bytes from storage a second.

    ``safe``: it may see the model's inputs. ``group``: it stands for so many workers below it, and is to hold one run of
    steps (`hyps.runtime.cluster.worker.group`).
    """

    name: str
    memory_bytes: int
    macs_per_s: int
    storage_bytes_per_s: int = 80_000_000
    safe: bool = True
    group: int = 0


@dataclass(slots=True)
class _Dealt:
    """The best way to deal out the first steps to the first workers: (slowest, bytes that cross), and where each begins."""

    cost: tuple[float, int] = (math.inf, 0)
    starts: tuple[int, ...] = field(default=())


def work(manifest: Manifest, step: Step) -> int:
    """Return a step's multiply-adds; moving its boundary tensors counts where that takes longer."""
    around = [manifest.tensors[name] for name in (*step.inputs, *step.outputs)]
    return max(step.multiply_adds, sum(record.nbytes for record in around) // _BYTES_PER_MAC, 1)


def groups(manifest: Manifest, offers: Sequence[Offer]) -> Iterable[range]:
    """Runs of steps that need nothing of each other and are worth spreading."""
    steps, start = manifest.steps, 0
    while start < len(steps) and len(offers) > 1:
        stop, made = start, set[str]()
        while stop < len(steps) and not made.intersection(steps[stop].inputs):
            made.update(steps[stop].outputs)
            stop += 1
        group = range(start, stop)
        if len(group) > 1 and _worth(manifest, group, offers):
            yield group
        start = max(stop, start + 1)


def _worth(manifest: Manifest, group: range, offers: Sequence[Offer]) -> bool:
    """Side by side they take less time than sending takes, or they hold many weights for what is sent."""
    inputs, outputs = boundary(manifest, group)
    workers = min(len(group), len(offers))
    sent = workers * sum(manifest.tensors[name].nbytes for name in inputs)
    sent += sum(manifest.tensors[name].nbytes for name in outputs)
    alone_s = sum(work(manifest, manifest.steps[index]) for index in group) / max(offer.macs_per_s for offer in offers)
    saved_s = alone_s * (1 - 1 / workers)
    weights = sum(manifest.steps[index].weight_bytes for index in group)
    return weights >= _WORTH * sent or saved_s > sent / LINK_BYTES_PER_S


def spread(
    manifest: Manifest, group: range, offers: Sequence[Offer], able: Mapping[str, set[int]]
) -> dict[int, tuple[str, str]]:
    """Each shard to the worker that has it done first."""
    done_s = dict.fromkeys((offer.name for offer in offers), 0.0)
    homes: dict[int, str] = {}
    for index in group:
        macs = work(manifest, manifest.steps[index])
        fits = [offer for offer in offers if index in able[offer.name]]
        best = min(fits, key=lambda offer: (done_s[offer.name] + macs / offer.macs_per_s, offer.name))
        homes[index] = best.name
        done_s[best.name] += macs / best.macs_per_s
    names = sorted(homes.values())  # so that each worker's shards lie together
    if all(able[name].issuperset(group) for name in names):
        homes = dict(zip(group, names, strict=True))
    return {index: (home, f"one of {len(group)} that run side by side") for index, home in homes.items()}


def in_sequence(
    manifest: Manifest, steps: Sequence[int], offers: Sequence[Offer], able: Mapping[str, set[int]]
) -> dict[int, tuple[str, str]]:
    """Steps in runs, one run a worker, so that the slowest takes least time and, of such, least bytes cross."""
    works = [work(manifest, manifest.steps[index]) for index in steps]
    before = [0, *_sums(works)]
    crossing = [sum(manifest.tensors[name].nbytes for name in manifest.steps[index].inputs) for index in steps]
    weights = [manifest.steps[index].weight_bytes for index in steps]
    held = [0, *_sums(weights)]
    best = [_Dealt(cost=(0.0, 0)), *(_Dealt() for _ in steps)]
    for offer in offers:
        room = offer.memory_bytes - CLUSTER_BYTES - max(step.alone_bytes for step in manifest.steps)
        nexts = [_Dealt(cost=each.cost, starts=(*each.starts, stop)) for stop, each in enumerate(best)]
        for stop in range(1, len(steps) + 1):
            for start in range(stop - 1, -1, -1):
                joined = not offer.group or start == stop - 1 or steps[start] + 1 == steps[start + 1]
                if steps[start] not in able[offer.name] or not joined:
                    break
                seconds = (before[stop] - before[start]) / offer.macs_per_s
                streamed = max(0, held[stop] - held[start] - max(room, 0))
                seconds += streamed / offer.storage_bytes_per_s  # read anew for every input
                slowest, crossed = best[start].cost
                cost = (max(slowest, seconds), crossed + (crossing[start] if start else 0))
                if cost < nexts[stop].cost:
                    nexts[stop] = _Dealt(cost=cost, starts=(*best[start].starts, start))
        best = nexts
    if math.isinf(best[-1].cost[0]):  # each step fits some worker, but not in this order of workers
        return _anyhow(steps, offers, able)
    bounds = [*best[-1].starts, len(steps)]
    total = max(before[-1], 1)
    found: dict[int, tuple[str, str]] = {}
    for number, offer in enumerate(offers):
        start, stop = bounds[number], bounds[number + 1]
        share = (before[stop] - before[start]) / total
        for position in range(start, stop):
            found[steps[position]] = (offer.name, f"{share:.0%} of the work in sequence")
    return found


def _anyhow(steps: Sequence[int], offers: Sequence[Offer], able: Mapping[str, set[int]]) -> dict[int, tuple[str, str]]:
    """Each step to the worker with most memory; what fits groups alone to groups, each a run if there are enough."""
    found: dict[int, tuple[str, str]] = {}
    for index in steps:
        fits = [offer for offer in offers if index in able[offer.name]]
        workers = [offer for offer in fits if not offer.group]
        if workers:
            found[index] = (max(workers, key=lambda offer: offer.memory_bytes).name, "the worker with most memory")
        else:
            before, taken = found.get(index - 1, ("", ""))[0], {name for name, _ in found.values()}
            best = max(fits, key=lambda offer: (offer.name == before, offer.name not in taken, offer.memory_bytes))
            found[index] = (best.name, "it fits groups alone")
    return found


def _sums(values: Iterable[int]) -> Iterable[int]:
    total = 0
    for value in values:
        total += value
        yield total
