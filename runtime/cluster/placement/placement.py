"""Which workers hold which steps: partitions in sequence, shards of one operator side by side (Kaboubi, section 4.3.2.2).

How steps are dealt out is in `hyps.runtime.cluster.placement.partitioner`. Weights stay in a worker's memory as far as it has room, others
are read for every run (`hyps.runtime.bundle.sub_bundle`). With ``copies``, each run is held by as many workers, so that the first
answer can win or several be compared; what reads the model's inputs goes to safe workers alone (section 3.3.4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.placement.partitioner import CLUSTER_BYTES, Offer, groups, in_sequence, spread, work
from hyps.runtime.errors import BudgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Runs of steps in the order of the schedule, each with the workers that hold it, and why."""

    runs: tuple[range, ...]
    homes: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]


def place(manifest: Manifest, offers: Sequence[Offer], copies: int = 1) -> Placement:
    """Deal all steps out. Raises `BudgetError` where a step fits no worker."""
    assert offers
    offers = sorted(offers, key=lambda offer: (not offer.safe, offer.name))
    able = {offer.name: can(manifest, offer) for offer in offers}
    for index, step in enumerate(manifest.steps):
        if any(index in each for each in able.values()):
            continue
        if not any(offer.safe for offer in offers):
            raise BudgetError("no worker that may see the inputs is there; start one of those that --safe names")
        most = max(offer.memory_bytes for offer in offers)
        raise BudgetError(
            f"step {step.name} needs {(step.alone_bytes + CLUSTER_BYTES) / 1e6:.1f} MB on a worker, the largest has "
            f"{most / 1e6:.1f} MB; give a worker more, or compile for a smaller budget"
        )
    homes: dict[int, tuple[str, str]] = {}
    many = [offer for offer in offers if not offer.group]  # a group has one run, in sequence
    for group in groups(manifest, many):
        if set(group) <= set[int]().union(*(able[offer.name] for offer in many)):
            homes.update(spread(manifest, group, many, able))
    rest = [index for index in range(len(manifest.steps)) if index not in homes]
    homes.update(in_sequence(manifest, rest, offers, able))
    return replace(manifest, _joined(homes), offers, copies)


def assign(manifest: Manifest, placement: Placement, offers: Iterable[Offer]) -> dict[str, dict[int, Manifest]]:
    """Each worker's shares by their numbers. Raises `BudgetError` where they do not fit together."""
    found: dict[str, dict[int, Manifest]] = {}
    for offer in offers:
        numbers = [number for number, homes in enumerate(placement.homes) if offer.name in homes]
        runs = [placement.runs[number] for number in numbers]
        parts = sub_bundles(manifest, runs, offer.memory_bytes - CLUSTER_BYTES) if runs else ()
        found[offer.name] = dict(zip(numbers, parts, strict=True))
    return found


def replace(manifest: Manifest, placement: Placement, offers: Sequence[Offer], copies: int = 1) -> Placement:
    """The same runs, each with ``copies`` workers as far as there are so many: who is left, and then who is free soonest.

    A group has one run, unless nobody else is left for another.
    Raises `BudgetError` where a step fits none that is left.
    """
    assert offers
    rates = {offer.name: offer.macs_per_s for offer in offers}
    able = {offer.name: can(manifest, offer) for offer in offers}
    works = [sum(work(manifest, manifest.steps[index]) for index in run) for run in placement.runs]
    homes = [[name for name in each if name in rates] for each in placement.homes]
    loads = {name: sum(works[number] for number, each in enumerate(homes) if name in each) / rates[name] for name in rates}
    reasons = [*placement.reasons]
    for number, run in enumerate(placement.runs):
        if not homes[number] and placement.homes[number]:
            reasons[number] = f"{', '.join(placement.homes[number])} is gone"
        while len(homes[number]) < copies:
            fits = [name for name in rates if name not in homes[number] and able[name].issuperset(run)]
            full = {offer.name for offer in offers if offer.group and any(offer.name in each for each in homes)}
            fits = [name for name in fits if name not in full] or ([] if homes[number] else fits)
            if not fits:
                break
            best = min(fits, key=lambda name: (loads[name] + works[number] / rates[name], name))
            homes[number].append(best)
            loads[best] += works[number] / rates[best]
        if not homes[number]:
            gone = ", ".join(placement.homes[number]) or "a worker"
            others = "other worker" if all(offer.safe for offer in offers) else "other worker that may see what they read"
            raise BudgetError(f"the steps of {gone}, which is gone, fit no {others}; start another")
    return Placement(runs=placement.runs, homes=tuple(map(tuple, homes)), reasons=tuple(reasons))


def can(manifest: Manifest, offer: Offer) -> set[int]:
    """The steps that a worker can run, and may."""
    room = offer.memory_bytes - CLUSTER_BYTES
    return {
        index
        for index, step in enumerate(manifest.steps)
        if step.alone_bytes <= room and (offer.safe or not set(step.inputs).intersection(manifest.inputs))
    }


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
    return Placement(runs=tuple(runs), homes=tuple((home,) for home, _ in said), reasons=tuple(reason for _, reason in said))
