"""Turn a bundle's steps into Dask tasks: spread over the workers, or all in one task.

When spread, each run of steps has a home: weights stay with the worker that holds them in memory, tensors travel from worker
to worker, and shards of one operator run side by side. In one task, any worker computes all steps and inputs run side by
side. No tensor travels then, but each worker reads all weights, and reads again for every task what it cannot keep. The plan
that reads and sends fewer bytes is chosen. Consecutive steps on one worker are one task, as Dask takes 6 ms for each
(measured).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary, sub_bundles
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import place
from hyps.runtime.cluster.placement.placement import assign
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES
from hyps.runtime.errors import BudgetError

#: The memory of a Dask worker's process without our runtime: 59 MB idle (13 of them Python's) and inputs in transit.
DASK_BYTES = 70_000_000
#: The same rate for all workers: the plan does not know their speeds, though Dask does, so memory alone decides.
_MACS_PER_S = 1_000_000_000
#: The bytes that could be read or sent in the time that Dask takes for a task.
_TASK_BYTES = 600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A task for every few inputs: the sub-bundle ``part``, the memory that it needs, and the worker it is meant for."""

    part: Manifest
    memory_bytes: int
    home: str | None

    @property
    def name(self) -> str:
        """The first and the last step, for Dask's dashboard."""
        first, last = self.part.steps[0].name, self.part.steps[-1].name
        return first if first == last else f"{first} to {last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """The stages in the order of the schedule, the bytes that all inputs are expected to read and send, and the reason."""

    stages: tuple[Stage, ...]
    nbytes: int
    reason: str


def task_plan(manifest: Manifest, memory_bytes: Mapping[str, int], count: int, chunk: int) -> TaskPlan:
    """Return the plan for ``count`` inputs, ``chunk`` of them together; ``memory_bytes`` is each worker's, by address.

    Raises `BudgetError` where a step fits no worker.
    """
    spread = _spread(manifest, memory_bytes, count)
    together = _together(manifest, memory_bytes, count, chunk) if count > 1 else None
    if together is None or (spread.nbytes < together.nbytes and count > 1):
        return spread
    return together


def one_task_plan(manifest: Manifest, memory_bytes: Mapping[str, int], count: int, chunk: int) -> TaskPlan:
    """Return the plan of one task, in which an inference may end at an exit. Raises `BudgetError`."""
    if (plan := _together(manifest, memory_bytes, count, chunk)) is None:
        raise BudgetError(
            "where a policy decides at exits, each worker runs every step, and a worker has too little memory for one",
            "give the workers more, or leave --exit-policy out",
        )
    return plan


def _spread(manifest: Manifest, memory_bytes: Mapping[str, int], count: int) -> TaskPlan:
    """Return the plan that gives each run of steps a home."""
    offers = [
        WorkerCapacity(name=address, memory_bytes=nbytes - DASK_BYTES + CLUSTER_BYTES, macs_per_s=_MACS_PER_S)
        for address, nbytes in memory_bytes.items()
    ]
    placement = place(manifest, offers)
    parts = assign(manifest, placement, offers)
    stages = tuple(
        Stage(part=parts[home][number], memory_bytes=max(step.alone_bytes for step in parts[home][number].steps), home=home)
        for number, (home,) in enumerate(placement.homes)
    )
    crossing = sum(manifest.tensors[name].nbytes for run in placement.runs[1:] for name in boundary(manifest, run)[0])
    each = sum(_streamed_bytes(stage.part) + _TASK_BYTES for stage in stages) + crossing
    return TaskPlan(stages=stages, nbytes=_file_bytes(manifest) + count * each, reason=f"{len(stages)} tasks for an input")


def _together(manifest: Manifest, memory_bytes: Mapping[str, int], count: int, chunk: int) -> TaskPlan | None:
    """Return the plan of one task; None where some worker cannot run every step."""
    budget_bytes = min(memory_bytes.values()) - DASK_BYTES
    try:
        (part,) = sub_bundles(manifest, [range(len(manifest.steps))], budget_bytes)
    except BudgetError:
        return None
    if manifest.exits:
        part = msgspec.structs.replace(part, outputs=manifest.outputs, exits=manifest.exits)
    read = _streamed_bytes(part)
    read = _weight_bytes(part) if read and chunk > 1 else read  # a batch pins nothing
    nbytes = len(memory_bytes) * _file_bytes(manifest) + math.ceil(count / chunk) * (read + _TASK_BYTES)
    stage = Stage(part=part, memory_bytes=budget_bytes, home=None)
    return TaskPlan(stages=(stage,), nbytes=nbytes, reason=f"one task for {chunk} inputs")


def _file_bytes(manifest: Manifest) -> int:
    return sum(file.size_bytes for step in manifest.steps for file in step.data_files)


def _weight_bytes(manifest: Manifest) -> int:
    return sum(step.weights.stored.size_bytes for step in manifest.steps if step.weights)


def _streamed_bytes(part: Manifest) -> int:
    return sum(step.read_bytes for step in part.steps)
