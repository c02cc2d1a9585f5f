"""Which worker runs which steps: partitions in sequence, shards of one operator side by side (Kaboubi, section 4.3.2.2).

The steps are dealt out in runs that follow each other, so that the slowest worker takes as little time as possible: that is
what a stream of inputs waits for. Steps that need nothing of each other, and hold so many weights that sending their inputs
to several workers is little beside them, are spread over all workers. Weights stay in a worker's memory as far as it has
room, the others are read for every run (`hyps.runtime.shares`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.runtime.errors import BudgetError
from hyps.runtime.manifest import Manifest, Step
from hyps.runtime.shares import boundary, shares

#: What a worker's process holds besides the executor: MQTT, TLS, HTTP (measured: 9 MB), and chunks under way.
CLUSTER_BYTES = 16_000_000
#: Shards are spread when their weights are so many times what is sent for it.
_WORTH = 8
#: Bytes that count as one multiply-add: activations are moved, not multiplied.
_BYTES_PER_MAC = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker has: bytes for its process, and multiply-adds a second."""

    name: str
    memory_bytes: int
    macs_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Runs of steps in the order of the schedule, each with its worker, and why."""

    runs: tuple[range, ...]
    homes: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(slots=True)
class _Dealt:
    """The best way to deal out the first steps to the first workers: (slowest, bytes that cross), and where each begins."""

    cost: tuple[float, int] = (math.inf, 0)
    starts: tuple[int, ...] = field(default=())


def work(manifest: Manifest, step: Step) -> int:
    """A step's multiply-adds, estimated from its large weights and the largest of its boundary tensors' planes."""
    around = [manifest.tensors[name] for name in (*step.inputs, *step.outputs)]
    planes = [math.prod(record.shape[2:]) for record in around if len(record.shape) == 4]
    plane = sorted(planes)[len(planes) // 2] if planes else 1
    macs = 0
    for weight in step.weights.tensors if step.weights else ():
        macs += weight.elements * (plane if len(weight.shape) > 2 else 1)
    return max(macs, sum(record.nbytes for record in around) // _BYTES_PER_MAC, 1)


def place(manifest: Manifest, offers: Sequence[Offer]) -> Placement:
    """Deal all steps out. Raises `BudgetError` where a step fits no worker."""
    assert offers
    able = {offer.name: _able(manifest, offer) for offer in offers}
    for index, step in enumerate(manifest.steps):
        if not any(index in each for each in able.values()):
            most = max(offer.memory_bytes for offer in offers)
            raise BudgetError(
                f"step {step.name} needs {(step.alone_bytes + CLUSTER_BYTES) / 1e6:.1f} MB on a worker, the largest has "
                f"{most / 1e6:.1f} MB; give a worker more, or compile for a smaller budget"
            )
    groups = list(_groups(manifest, len(offers)))
    homes: dict[int, tuple[str, str]] = {}
    for group in groups:
        homes.update(_spread(manifest, group, offers, able))
    rest = [index for index in range(len(manifest.steps)) if index not in homes]
    homes.update(_in_sequence(manifest, rest, offers, able))
    return _joined(homes)


def assign(manifest: Manifest, placement: Placement, offers: Iterable[Offer]) -> dict[str, dict[int, Manifest]]:
    """Each worker's shares by their numbers. Raises `BudgetError` where they do not fit together."""
    found: dict[str, dict[int, Manifest]] = {}
    for offer in offers:
        numbers = [number for number, home in enumerate(placement.homes) if home == offer.name]
        runs = [placement.runs[number] for number in numbers]
        parts = shares(manifest, runs, offer.memory_bytes - CLUSTER_BYTES) if runs else ()
        found[offer.name] = dict(zip(numbers, parts, strict=True))
    return found


def replace(manifest: Manifest, placement: Placement, offers: Sequence[Offer]) -> Placement:
    """The same runs, those of workers that are gone given to the others: to whoever is free soonest.

    Raises `BudgetError` where a step fits none that is left.
    """
    assert offers
    left = {offer.name: offer for offer in offers}
    able = {offer.name: _able(manifest, offer) for offer in offers}
    loads = dict.fromkeys(left, 0.0)
    homes, reasons = list(placement.homes), list(placement.reasons)
    works = [sum(work(manifest, manifest.steps[index]) for index in run) for run in placement.runs]
    for number, home in enumerate(homes):
        if home in left:
            loads[home] += works[number] / left[home].macs_per_s
    for number, home in enumerate(homes):
        if home in left:
            continue
        fits = [name for name in left if able[name].issuperset(placement.runs[number])]
        if not fits:
            raise BudgetError(f"the steps of {home}, which is gone, fit no other worker; start another")
        homes[number] = min(fits, key=lambda name: (loads[name] + works[number] / left[name].macs_per_s, name))
        loads[homes[number]] += works[number] / left[homes[number]].macs_per_s
        reasons[number] = f"{home} is gone"
    return Placement(runs=placement.runs, homes=tuple(homes), reasons=tuple(reasons))


def _able(manifest: Manifest, offer: Offer) -> set[int]:
    """The steps that a worker can run."""
    room = offer.memory_bytes - CLUSTER_BYTES
    return {index for index, step in enumerate(manifest.steps) if step.alone_bytes <= room}


def _groups(manifest: Manifest, workers: int) -> Iterable[range]:
    """Runs of steps that need nothing of each other and are worth spreading."""
    steps, start = manifest.steps, 0
    while start < len(steps) and workers > 1:
        stop, made = start, set[str]()
        while stop < len(steps) and not made.intersection(steps[stop].inputs):
            made.update(steps[stop].outputs)
            stop += 1
        group = range(start, stop)
        if len(group) > 1 and _worth(manifest, group, workers):
            yield group
        start = max(stop, start + 1)


def _worth(manifest: Manifest, group: range, workers: int) -> bool:
    inputs, outputs = boundary(manifest, group)
    sent = workers * sum(manifest.tensors[name].nbytes for name in inputs)
    sent += sum(manifest.tensors[name].nbytes for name in outputs)
    return sum(manifest.steps[index].weight_bytes for index in group) >= _WORTH * sent


def _spread(
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


def _in_sequence(
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
                if steps[start] not in able[offer.name]:
                    break
                seconds = (before[stop] - before[start]) / offer.macs_per_s
                streamed = max(0, held[stop] - held[start] - max(room, 0))
                seconds += streamed * _BYTES_PER_MAC * 4 / offer.macs_per_s  # read anew for every input
                slowest, crossed = best[start].cost
                cost = (max(slowest, seconds), crossed + (crossing[start] if start else 0))
                if cost < nexts[stop].cost:
                    nexts[stop] = _Dealt(cost=cost, starts=(*best[start].starts, start))
        best = nexts
    if math.isinf(best[-1].cost[0]):  # each step fits some worker, but not in this order of workers
        homes = {index: max((o for o in offers if index in able[o.name]), key=lambda o: o.memory_bytes) for index in steps}
        return {index: (offer.name, "the worker with most memory") for index, offer in homes.items()}
    bounds = [*best[-1].starts, len(steps)]
    total = max(before[-1], 1)
    found: dict[int, tuple[str, str]] = {}
    for number, offer in enumerate(offers):
        start, stop = bounds[number], bounds[number + 1]
        share = (before[stop] - before[start]) / total
        for position in range(start, stop):
            found[steps[position]] = (offer.name, f"{share:.0%} of the work in sequence")
    return found


def _sums(values: Iterable[int]) -> Iterable[int]:
    total = 0
    for value in values:
        total += value
        yield total


def _joined(homes: Mapping[int, tuple[str, str]]) -> Placement:
    """Steps that follow each other on one worker for one reason are one run."""
    runs: list[range] = []
    said: list[tuple[str, str]] = []
    for index in range(len(homes)):
        if runs and said[-1] == homes[index]:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
            said.append(homes[index])
    return Placement(runs=tuple(runs), homes=tuple(home for home, _ in said), reasons=tuple(reason for _, reason in said))
