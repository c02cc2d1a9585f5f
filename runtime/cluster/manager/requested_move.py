"""Check a move of sub-bundles that an operator asks for, and make the placement that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, runnable_steps
from hyps.runtime.errors import BudgetError


def moved_as_asked(
    manifest: Manifest, placement: Placement, homes: Mapping[int, Sequence[str]], workers: Sequence[WorkerCapacity]
) -> Placement:
    """Return a placement with some sub-bundles, by their numbers, on the workers named; the runs of steps stay.

    Raises `BudgetError` for a sub-bundle or a worker that is not there, or a worker that cannot have it.
    """
    if unknown := sorted({name for each in homes.values() for name in each} - {worker.name for worker in workers}):
        raise BudgetError(f"{unknown[0]!r} is no worker that may get sub-bundles now")
    numbers = placement.numbers
    if strange := sorted(set(homes) - set(numbers)):
        known = f"0 to {numbers[-1]}" if [*numbers] == [*range(len(numbers))] else ", ".join(map(str, numbers))
        raise BudgetError(f"there is no sub-bundle {strange[0]}; sub-bundles are {known}")
    if [number for number, names in homes.items() if not names]:
        raise BudgetError("each sub-bundle needs a worker")
    rows = zip(numbers, placement.homes, placement.reasons, strict=True)
    changed = [(homes.get(number, known), "as asked" if number in homes else why) for number, known, why in rows]
    moved = replace(
        placement,
        homes=tuple(tuple(dict.fromkeys(names)) for names, _ in changed),
        reasons=tuple(why for _, why in changed),
    )
    _check_rights(manifest, moved, workers)
    return moved


def _check_rights(manifest: Manifest, placement: Placement, workers: Sequence[WorkerCapacity]) -> None:
    for worker in workers:
        runnable = runnable_steps(manifest, worker)
        for run, homes in zip(placement.runs, placement.homes, strict=True):
            if worker.name in homes and not runnable.issuperset(run):
                step = manifest.steps[next(index for index in run if index not in runnable)]
                raise BudgetError(f"{worker.name} cannot have step {step.name}: it does not fit, or may not see the inputs")
