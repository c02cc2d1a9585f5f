"""Place a coded bundle: the shards of a group on different boards, and copies of everything else.

A shard, or a parity shard, is always a sub-bundle of its own, so that its answer comes as soon as it is computed. The steps
between the groups are cut into runs in proportion to the boards' speeds. Shards go to the boards that are free soonest, by
the seconds that steps take there. Then steps move from the busiest boards to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from hyps.runtime.bundle.coded_groups import CodedGroup, run_groups
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.balancing import balancings
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import PlacementObjective, judge
from hyps.runtime.cluster.placement.placement import Placement, runnable_steps
from hyps.runtime.cluster.placement.problem import SecondsOnWorker, claimed_seconds
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.errors import BudgetError


def place_coded(
    manifest: Manifest,
    workers: Sequence[WorkerCapacity],
    copies: int = 1,
    seconds: SecondsOnWorker | None = None,
    objective: PlacementObjective = "throughput",
) -> Placement:
    """Place all steps; what is no shard of a coded group is on ``copies`` workers. Raises `BudgetError`.

    ``seconds`` are those of steps on workers, by their claims if it is None.
    """
    seconds = seconds or claimed_seconds(manifest)
    shards = {name for code in manifest.codes for name in code.tensors}
    alone = {index for index, step in enumerate(manifest.steps) if not shards.isdisjoint(step.outputs)}
    homes = _in_sequence(manifest, [index for index in range(len(manifest.steps)) if index not in alone], workers, seconds)
    greedy = repair_coded(manifest, _in_runs(manifest, homes, alone), workers, 1, seconds)
    return repair_coded(manifest, _balanced(manifest, greedy, workers, seconds, objective), workers, copies, seconds)


def _in_runs(manifest: Manifest, homes: Mapping[int, str], alone: Collection[int]) -> Placement:
    """Return the placement of steps on these workers, by step; steps ``alone`` are runs of their own."""
    runs: list[range] = []
    for index in range(len(manifest.steps)):
        goes_on = index and not {index - 1, index}.intersection(alone) and homes.get(index) == homes.get(index - 1)
        if goes_on:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    groups = run_groups(manifest, runs)
    reasons = {place: _reason(group, number) for group in groups for number, place in enumerate(group.members)}
    return Placement(
        runs=tuple(runs),
        homes=tuple((homes[run.start],) if run.start in homes else () for run in runs),
        reasons=tuple(reasons.get(place, "a part of the work in sequence") for place in range(len(runs))),
    )


def _balanced(
    manifest: Manifest,
    greedy: Placement,
    workers: Sequence[WorkerCapacity],
    seconds: SecondsOnWorker,
    objective: PlacementObjective,
) -> Placement:
    """Return the best by its figures of a placement and of better balanced ones."""
    groups = run_groups(manifest, greedy.runs)
    starts = {place: run.start for place, run in enumerate(greedy.runs)}
    peers = {
        starts[member]: [starts[other] for other in group.members if other != member]
        for group in groups
        for member in group.members
    }
    single = [worker for worker in workers if not worker.group]
    found = [greedy]
    for homes in balancings(
        [each[0] for run, each in zip(greedy.runs, greedy.homes, strict=True) for _ in run],
        peers,
        {worker.name: seconds(worker) for worker in single},
        {worker.name: runnable_steps(manifest, worker) for worker in single},
    ):
        found.append(_in_runs(manifest, dict(enumerate(homes)), peers))
    judged = []
    for each in found:
        with suppress(BudgetError):
            judged.append(judge(manifest, each, workers, seconds))
    return min(judged, key=lambda each: KEYS[objective](each.evaluation)).placement if judged else greedy


def repair_coded(
    manifest: Manifest,
    placement: Placement,
    workers: Sequence[WorkerCapacity],
    copies: int = 1,
    seconds: SecondsOnWorker | None = None,
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
    seconds = seconds or claimed_seconds(manifest)
    taken_s = {worker.name: _run_seconds(placement, seconds(worker)) for worker in workers}
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in workers}
    homes = [
        [name for name in each if name in taken_s and runnable[name].issuperset(run)]
        for run, each in zip(placement.runs, placement.homes, strict=True)
    ]
    groups = {place: group for group in run_groups(manifest, placement.runs, margin) for place in group.members}
    busy_s = {name: sum(run_s[place] for place, each in enumerate(homes) if name in each) for name, run_s in taken_s.items()}
    idle = {name for name in taken_s if not any(name in each for each in homes)}
    for place, run in enumerate(placement.runs):
        group = groups.get(place)
        while len(homes[place]) < (1 if group else copies):
            shared = Counter(name for member in group.members for name in homes[member]) if group else Counter[str]()
            can_wait = group.is_served(lambda member: bool(homes[member]), exact=exact) if group else bool(homes[place])
            fits = [name for name in taken_s if name not in homes[place] and runnable[name].issuperset(run)]
            if spare_only and can_wait:
                fits = [name for name in fits if name in idle and not shared[name]]
            if not fits:
                break
            best = min(fits, key=lambda name: (shared[name], busy_s[name] + taken_s[name][place], name))
            homes[place].append(best)
            busy_s[best] += taken_s[best][place]
        if not homes[place] and not (group and group.is_served(lambda member: bool(homes[member]), exact=exact)):
            step = max((manifest.steps[index] for index in run), key=lambda step: step.alone_bytes)
            raise BudgetError(
                f"step {step.name} fits no worker; start one with more memory, or compile for a smaller budget"
            )
    return replace(placement, homes=tuple(map(tuple, homes)))


def _run_seconds(placement: Placement, steps_s: Sequence[float]) -> list[float]:
    """Return the seconds of each run, by those of all steps."""
    return [sum(steps_s[index] for index in run) for run in placement.runs]


def _in_sequence(
    manifest: Manifest, steps: Sequence[int], workers: Sequence[WorkerCapacity], seconds: SecondsOnWorker
) -> dict[int, str]:
    """Give each step to a worker, in runs in proportion to speeds. Raises `BudgetError` if a step fits no worker."""
    order = sorted(workers, key=lambda worker: (not worker.safe, bool(worker.group), worker.name))
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in order}
    taken_s = [seconds(worker) for worker in order]
    speeds = [1 / sum(steps_s[index] for index in steps) for steps_s in taken_s] if steps else []
    homes: dict[int, str] = {}
    place, done, until = 0, 0.0, speeds[0] / sum(speeds) if steps else 0.0
    for index in steps:
        part = sum(speed * steps_s[index] for speed, steps_s in zip(speeds, taken_s, strict=True)) / len(order)
        while place < len(order) - 1 and done + part / 2 > until:
            place += 1
            until += speeds[place] / sum(speeds)
        done += part
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
