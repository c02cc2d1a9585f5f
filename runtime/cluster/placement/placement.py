"""Define a placement of a bundle's steps on workers, the sub-bundles that follow from it, and how it is repaired.

Weights stay in a worker's memory as far as there is room, and others are read for every run
(`hyps.runtime.bundle.sub_bundle`). `hyps.runtime.cluster.placement.choice` finds placements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES, step_cost
from hyps.runtime.errors import BudgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Runs of steps in schedule order, each with the workers that hold it and the reason.

    The homes of a run in ``dealt`` share its inputs: each input goes to one of them (data parallelism). Otherwise each home
    computes every input. ``numbers`` are the numbers of the runs' sub-bundles, 0 and up if empty. While runs change under
    way, the runs of two placements are held together (`hyps.runtime.cluster.manager.generations`); they may overlap then.
    """

    runs: tuple[range, ...]
    homes: tuple[tuple[str, ...], ...]
    reasons: tuple[str, ...]
    dealt: frozenset[range] = frozenset()
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.numbers:
            object.__setattr__(self, "numbers", tuple(range(len(self.runs))))


def assign(manifest: Manifest, placement: Placement, workers: Iterable[WorkerCapacity]) -> dict[str, dict[int, Manifest]]:
    """Return each worker's sub-bundles by their numbers. Raises `BudgetError` if a worker's do not fit together."""
    assigned: dict[str, dict[int, Manifest]] = {}
    for worker in workers:
        held = [place for place, homes in enumerate(placement.homes) if worker.name in homes]
        numbers, runs = [placement.numbers[place] for place in held], [placement.runs[place] for place in held]
        parts = sub_bundles(manifest, runs, worker.memory_bytes - CLUSTER_BYTES) if runs else ()
        assigned[worker.name] = dict(zip(numbers, parts, strict=True))
    return assigned


def repair_placement(
    manifest: Manifest, placement: Placement, workers: Sequence[WorkerCapacity], copies: int = 1
) -> Placement:
    """Return the same runs on these workers, each on ``copies`` of them if there are enough.

    A run stays on the workers that hold it, unless they have too little memory for it now. Missing copies go to the workers
    that are free soonest. A group has one run, unless no other worker is left for a second. Raises `BudgetError` if a run
    fits no worker.
    """
    assert workers
    rates = {worker.name: worker.macs_per_s for worker in workers}
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in workers}
    costs = [sum(step_cost(manifest, manifest.steps[index]) for index in run) for run in placement.runs]
    homes = [
        [name for name in each if name in rates and runnable[name].issuperset(run)]
        for run, each in zip(placement.runs, placement.homes, strict=True)
    ]
    busy_s = {name: sum(costs[number] for number, each in enumerate(homes) if name in each) / rates[name] for name in rates}
    reasons = [*placement.reasons]
    for number, run in enumerate(placement.runs):
        gone = ", ".join(placement.homes[number])
        verb = "has changed" if rates.keys() & placement.homes[number] else "is gone"
        verb = verb if len(placement.homes[number]) == 1 else {"is gone": "are gone"}.get(verb, "have changed")
        if gone and not homes[number]:
            reasons[number] = f"{gone} {verb}"
        while len(homes[number]) < copies:
            fits = [name for name in rates if name not in homes[number] and runnable[name].issuperset(run)]
            full = {worker.name for worker in workers if worker.group and any(worker.name in each for each in homes)}
            fits = [name for name in fits if name not in full] or ([] if homes[number] else fits)
            if not fits:
                break
            best = min(fits, key=lambda name: (busy_s[name] + costs[number] / rates[name], name))
            homes[number].append(best)
            busy_s[best] += costs[number] / rates[best]
        if not homes[number]:
            others = "other worker" if all(worker.safe for worker in workers) else "other worker that may see what they read"
            raise BudgetError(f"the steps of {gone}, which {verb}, fit no {others}; start another")
    return replace(placement, homes=tuple(map(tuple, homes)), reasons=tuple(reasons))


def runnable_steps(manifest: Manifest, worker: WorkerCapacity) -> set[int]:
    """Return the steps that fit a worker and that it may run."""
    budget_bytes = worker.memory_bytes - CLUSTER_BYTES
    return {
        index
        for index, step in enumerate(manifest.steps)
        if step.alone_bytes <= budget_bytes and (worker.safe or not set(step.inputs).intersection(manifest.inputs))
    }
