"""Place a bundle's steps on a cluster's workers, with the planner of ``hyps-manager plan`` and its formula of costs.

Runs of steps, shards and branches side by side (Kaboubi, section 4.3.2.2), and data-parallel replicas (Hadidi, section
4.4.2) come from `hyps.runtime.cluster.planning.planner`. With ``copies``, that many workers hold each run, so that the first
result can win or several can be compared. Only safe workers get steps that read the model's inputs (Kaboubi, section
3.3.4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, repair_placement, runnable_steps
from hyps.runtime.cluster.placement.problem import SecondsOnWorker, claimed_seconds, placement_problem, with_rights
from hyps.runtime.cluster.placement.stages import placement_of, stages_as_placed, with_inputs
from hyps.runtime.cluster.planning.evaluation import Evaluation, evaluate
from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import PipelineStage, Stages
from hyps.runtime.cluster.planning.reasons import with_reasons
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES
from hyps.runtime.errors import BudgetError

PlacementObjective = Literal["throughput", "latency"]
#: Replicas are worth it where a stream is faster by this factor: without them, each worker knows less of the network.
_WORTHWHILE = 1.2
#: The most combinations that the dynamic program compares: a manager plans again and again.
_MOST_COMPARED = 1e7
#: Seconds that differ by no more are equal.
_EQUAL = 1 + 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPlacement:
    """A placement with its figures."""

    placement: Placement
    evaluation: Evaluation

    @property
    def busiest(self) -> str:
        """The worker that bounds the throughput."""
        costs = [cost for cost in self.evaluation.boards if cost.stage == self.evaluation.slowest]
        return max(costs, key=lambda cost: cost.period_s).board


def place(
    manifest: Manifest,
    workers: Sequence[WorkerCapacity],
    *,
    copies: int = 1,
    shares_inputs: bool = False,
    objective: PlacementObjective = "throughput",
    seconds: SecondsOnWorker | None = None,
) -> Placement:
    """Place all steps. Raises `BudgetError` if a step fits no worker.

    ``seconds`` are those of steps on workers, by their claims if it is None. With ``shares_inputs``, a run may be on several
    workers that deal its inputs out, if no ``copies`` are asked for.
    """
    assert workers
    _check_fit(manifest, workers)
    seconds = seconds or claimed_seconds(manifest)
    found = _planned(manifest, workers, seconds, objective, shares_inputs=False)
    if copies > 1:
        return repair_placement(manifest, found.placement, workers, copies)
    if shares_inputs and len(workers) > 1:
        if objective == "latency":
            return _with_replicas(manifest, found, workers, seconds).placement
        shared = _planned(manifest, workers, seconds, objective, shares_inputs=True)
        if shared.evaluation.period_s * _WORTHWHILE < found.evaluation.period_s:
            found = shared
    return found.placement


def judge(
    manifest: Manifest, placement: Placement, workers: Sequence[WorkerCapacity], seconds: SecondsOnWorker | None = None
) -> JudgedPlacement:
    """Return a placement of all steps with its figures. Raises `BudgetError` if it does not fit the workers."""
    problem = placement_problem(manifest, workers, seconds or claimed_seconds(manifest))
    return JudgedPlacement(placement=placement, evaluation=evaluate(*problem, stages_as_placed(manifest, placement)))


def _planned(
    manifest: Manifest,
    workers: Sequence[WorkerCapacity],
    seconds: SecondsOnWorker,
    objective: PlacementObjective,
    *,
    shares_inputs: bool,
) -> JudgedPlacement:
    """Return the planner's placement, or where it finds none, the one with each step on the worker with most memory."""
    workload, fleet = placement_problem(manifest, workers, seconds)
    fleet = with_rights(fleet, workers, shares_inputs=shares_inputs)
    found = []
    for branches in (True, False):
        try:
            planner = PlacementPlanner(
                workload, fleet, len(workers), branches=branches, partitions=False, most_compared=_MOST_COMPARED
            )
            planned = planner.plan(objective, len(workers))
        except BudgetError:
            break
        placement = with_inputs(manifest, placement_of(with_reasons(planned.stages, planned.evaluation)))
        found.append(judge(manifest, placement, workers, seconds))
        if found[-1].evaluation.crossing_bytes <= planned.evaluation.crossing_bytes * _EQUAL:
            break  # else a branch's steps are in several runs, and what crosses between these counts, too
    if not found:
        found.append(judge(manifest, _by_memory(manifest, workers), workers, seconds))
    return min(found, key=lambda each: KEYS[objective](each.evaluation))


def _with_replicas(
    manifest: Manifest, found: JudgedPlacement, workers: Sequence[WorkerCapacity], seconds: SecondsOnWorker
) -> JudgedPlacement:
    """Give the slowest run to idle workers, too, one by one, where a stream gets faster and no input slower."""
    groups = {worker.name for worker in workers if worker.group}
    for worker in workers:
        used = {name for homes in found.placement.homes for name in homes}
        stages = stages_as_placed(manifest, found.placement)
        slowest = found.evaluation.slowest
        assert isinstance(slowest, int)
        stage = stages[slowest]
        if worker.name in used | groups or stage.sharing == "shards" or groups.intersection(stage.boards):
            continue
        more = _replaced(stages, slowest, replace(stage, boards=(*stage.boards, worker.name), sharing="replicas"))
        try:
            judged = judge(manifest, placement_of(more), workers, seconds)
        except BudgetError:
            continue
        new, old = judged.evaluation, found.evaluation
        if new.latency_s <= old.latency_s * _EQUAL and new.period_s * _EQUAL < old.period_s:
            placement = placement_of(with_reasons(more, new))
            found = JudgedPlacement(placement=placement, evaluation=new)
    return found


def _replaced(stages: Stages, place: int, stage: PipelineStage) -> Stages:
    return (*stages[:place], stage, *stages[place + 1 :])


def _check_fit(manifest: Manifest, workers: Sequence[WorkerCapacity]) -> None:
    runnable = set[int]().union(*(runnable_steps(manifest, worker) for worker in workers))
    for index, step in enumerate(manifest.steps):
        if index in runnable:
            continue
        if not any(worker.safe for worker in workers):
            raise BudgetError("no worker that may see the inputs is there; start one of those that --safe names")
        largest = max(worker.memory_bytes for worker in workers)
        raise BudgetError(
            f"step {step.name} needs {(step.alone_bytes + CLUSTER_BYTES) / 1e6:.1f} MB on a worker, the largest has "
            f"{largest / 1e6:.1f} MB; give a worker more, or compile for a smaller budget"
        )


def _by_memory(manifest: Manifest, workers: Sequence[WorkerCapacity]) -> Placement:
    """Place each step on the worker with most memory that may have it.

    Steps that fit only groups go to groups, each run to a group of its own if there are enough.
    """
    runnable = {worker.name: runnable_steps(manifest, worker) for worker in workers}
    homes: list[str] = []
    for index in range(len(manifest.steps)):
        fits = [worker for worker in workers if index in runnable[worker.name]]
        single = [worker for worker in fits if not worker.group]
        before = homes[-1] if homes else ""
        best = max(
            single or fits,
            key=lambda worker: (bool(worker.group) and worker.name == before, _is_free(worker, homes), worker.memory_bytes),
        )
        homes.append(best.name)
    runs: list[range] = []
    for index, home in enumerate(homes):
        if runs and homes[index - 1] == home:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return Placement(
        runs=tuple(runs),
        homes=tuple((homes[run.start],) for run in runs),
        reasons=("no planned placement fits: the worker with most memory",) * len(runs),
    )


def _is_free(worker: WorkerCapacity, homes: Sequence[str]) -> bool:
    """Return whether a group holds nothing yet; single workers may have several runs."""
    return bool(worker.group) and worker.name not in homes
