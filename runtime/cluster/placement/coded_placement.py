"""Place a coded bundle: the shards of a group on different boards, and copies of everything else.

A shard, or a parity shard, is always a sub-bundle of its own, so that its answer comes as soon as it is computed. The steps
between the groups are cut into runs in proportion to the boards' speeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hyps.runtime.bundle.coded_groups import CodedGroup, run_groups
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, runnable_steps
from hyps.runtime.cluster.planning.step_cost import step_cost
from hyps.runtime.errors import BudgetError


def place_coded(manifest: Manifest, workers: Sequence[WorkerCapacity], copies: int = 1) -> Placement:
    """Place all steps; what is no shard of a coded group is on ``copies`` workers. Raises `BudgetError`."""
    shards = {name for code in manifest.codes for name in code.tensors}
    alone = [index for index, step in enumerate(manifest.steps) if not shards.isdisjoint(step.outputs)]
    homes = _in_sequence(manifest, [index for index in range(len(manifest.steps)) if index not in alone], workers)
    runs: list[range] = []
    for index in range(len(manifest.steps)):
        if index in homes and index - 1 in homes and homes[index] == homes[index - 1]:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    groups = run_groups(manifest, runs)
    reasons = {place: _reason(group, number) for group in groups for number, place in enumerate(group.members)}
    bare = Placement(
        runs=tuple(runs),
        homes=tuple((homes[run.start],) if run.start in homes else () for run in runs),
        reasons=tuple(reasons.get(place, "a part of the work in sequence") for place in range(len(runs))),
    )
    return repair_coded(manifest, bare, workers, copies)


def repair_coded(
    manifest: Manifest,
    placement: Placement,
    workers: Sequence[WorkerCapacity],
    copies: int = 1,
    *,
    spare_only: bool = False,
    margin: int = 0,
    exact: bool = False,
) -> Placement:
    """Return the same runs on these workers: what has too few homes gets others, a shard none that has another of its group.

    With ``spare_only``, what can be done without gets idle workers only: loading stops a worker's answers for a while. That
    are shards that can be decoded with a ``margin`` (`CodedGroup`), if ``exact`` parity shards alone.
    Raises `BudgetError` if a run fits no worker.
    """
    rates = {worker.name: worker.macs_per_s for worker in workers}
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in workers}
    costs = [sum(step_cost(manifest, manifest.steps[index]) for index in run) for run in placement.runs]
    homes = [
        [name for name in each if name in rates and runnable[name].issuperset(run)]
        for run, each in zip(placement.runs, placement.homes, strict=True)
    ]
    groups = {place: group for group in run_groups(manifest, placement.runs, margin) for place in group.members}
    busy_s = {name: sum(costs[place] for place, each in enumerate(homes) if name in each) / rates[name] for name in rates}
    idle = {name for name in rates if not any(name in each for each in homes)}
    for place, run in enumerate(placement.runs):
        group = groups.get(place)
        while len(homes[place]) < (1 if group else copies):
            shared = Counter(name for member in group.members for name in homes[member]) if group else Counter[str]()
            can_wait = group.is_served(lambda member: bool(homes[member]), exact=exact) if group else bool(homes[place])
            fits = [name for name in rates if name not in homes[place] and runnable[name].issuperset(run)]
            if spare_only and can_wait:
                fits = [name for name in fits if name in idle and not shared[name]]
            if not fits:
                break
            best = min(fits, key=lambda name: (shared[name], busy_s[name] + costs[place] / rates[name], name))
            homes[place].append(best)
            busy_s[best] += costs[place] / rates[best]
        if not homes[place] and not (group and group.is_served(lambda member: bool(homes[member]), exact=exact)):
            step = max((manifest.steps[index] for index in run), key=lambda step: step.alone_bytes)
            raise BudgetError(
                f"step {step.name} fits no worker; start one with more memory, or compile for a smaller budget"
            )
    return replace(placement, homes=tuple(map(tuple, homes)))


def _in_sequence(manifest: Manifest, steps: Sequence[int], workers: Sequence[WorkerCapacity]) -> dict[int, str]:
    """Give each step to a worker, in runs in proportion to speeds. Raises `BudgetError` if a step fits no worker."""
    order = sorted(workers, key=lambda worker: (not worker.safe, bool(worker.group), worker.name))
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in order}
    costs = {index: step_cost(manifest, manifest.steps[index]) for index in steps}
    total, speed = sum(costs.values()), sum(worker.macs_per_s for worker in order)
    homes: dict[int, str] = {}
    place, done, until = 0, 0.0, total * order[0].macs_per_s / speed
    for index in steps:
        while place < len(order) - 1 and done + costs[index] / 2 > until:
            place += 1
            until += total * order[place].macs_per_s / speed
        done += costs[index]
        fits = [worker for worker in (*order[place:], *order[:place]) if index in runnable[worker.name]]
        if not fits:
            needs, has = manifest.steps[index].alone_bytes, max(worker.memory_bytes for worker in order)
            raise BudgetError(
                f"step {manifest.steps[index].name} needs {needs / 1e6:.1f} MB and a worker's own memory; "
                f"the largest has {has / 1e6:.1f} MB; give a worker more, or compile for a smaller budget"
            )
        homes[index] = fits[0].name
    return homes


def _reason(group: CodedGroup, number: int) -> str:
    count = len(group.shards)
    kind = (
        f"shard {number + 1} of {count}" if number < count else f"parity shard {number + 1 - count} of {len(group.parity)}"
    )
    return f"{kind} of {group.code.name}, any {count} of which give all"
