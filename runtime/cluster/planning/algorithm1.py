"""Assign tasks as Hadidi's Algorithm 1 does (thesis, section 4.4.2, figure 4.8), to compare our planner with it.

1. Group consecutive layers for as long as they fit a device's memory. A layer that fits no device alone sets ``noFit``.
2. More groups than devices: combine the two neighbours that together need the least memory, until there are as many.
3. Fewer groups than devices, or ``noFit``: while the numbers differ, replace the slowest task by its fastest variant, which
   has one device more: *model-parallel* where the task's steps need nothing of each other, or *data-parallel*.

The thesis has equal devices, so one memory size, one profile and one communication model. On unequal boards the least
memory, the slowest class and the slowest link stand for all, and the boards get the tasks in their own order. Line 16 of the
listing takes the fastest of all variants of all tasks, which would split the shortest task, or change nothing; the text's
goal, more inferences a second, needs the slowest task's variants, which are what is taken here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hyps.runtime.cluster.planning.crossing import crossing, tensor_uses
from hyps.runtime.cluster.planning.holding import hold
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, PipelineStage, Sharing, Stages, Workload
from hyps.runtime.cluster.planning.shares import Components, components_of
from hyps.runtime.errors import BudgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVariant:
    """A task: a run of steps on some devices, shared in one way."""

    steps: range
    devices: int = 1
    sharing: Sharing = "alone"


def task_assignment(workload: Workload, fleet: Fleet, count: int) -> Stages:
    """Return Algorithm 1's placement on the first ``count`` boards; its steps may be more than a board can run."""
    problem = _EqualDevices(workload, fleet, fleet.boards[:count])
    tasks, does_not_fit = problem.initial_groups()
    if len(tasks) > count:
        tasks = problem.combined(tasks, count)
    if len(tasks) < count or does_not_fit:
        tasks = problem.with_variants(tasks, count)
    names = iter(board.name for board in fleet.boards)
    return tuple(problem.stage(task, [next(names) for _ in range(task.devices)]) for task in tasks)


class _EqualDevices:
    """The problem as the thesis has it: devices that are equal to the least of these boards."""

    def __init__(self, workload: Workload, fleet: Fleet, boards: Sequence[Board]) -> None:
        self._workload, self._uses = workload, tensor_uses(workload)
        self._known: dict[TaskVariant, float] = {}
        self._parts: dict[range, Components] = {}
        self._memory_bytes = min(board.memory_bytes for board in boards)
        kinds = {board.board_class: board for board in boards}.values()
        slowest = max(kinds, key=lambda board: sum(step.seconds.get(board.board_class, 0.0) for step in workload.steps))
        self._device = Board(
            name=slowest.name,
            board_class=slowest.board_class,
            memory_bytes=self._memory_bytes,
            storage_bytes_per_s=min(board.storage_bytes_per_s for board in boards),
            idle_watts=slowest.idle_watts,
            busy_watts=slowest.busy_watts,
        )
        links = [fleet.links[pair] for board in boards for pair in ((board.name, HUB), (HUB, board.name))]
        self._bytes_per_s = min(each.bytes_per_s for each in links)
        self._latency_s = max(each.latency_s for each in links)

    def initial_groups(self) -> tuple[list[TaskVariant], bool]:
        """Return runs that fit, as long as they can be, and whether a step alone does not (line 6)."""
        tasks: list[TaskVariant] = []
        start = 0
        for stop in range(1, len(self._workload.steps) + 1):
            last = stop == len(self._workload.steps)
            if last or self._memory(range(start, stop + 1)) > self._memory_bytes:
                tasks.append(TaskVariant(steps=range(start, stop)))
                start = stop
        return tasks, any(self._memory(task.steps) > self._memory_bytes for task in tasks)

    def combined(self, tasks: list[TaskVariant], count: int) -> list[TaskVariant]:
        """Combine the consecutive pair with the least memory until there are ``count`` tasks (line 8)."""
        while len(tasks) > count:
            joined = [range(one.steps.start, other.steps.stop) for one, other in itertools.pairwise(tasks)]
            place = min(range(len(joined)), key=lambda at: self._memory(joined[at]))
            tasks = [*tasks[:place], TaskVariant(steps=joined[place]), *tasks[place + 2 :]]
        return tasks

    def with_variants(self, tasks: list[TaskVariant], count: int) -> list[TaskVariant]:
        """Replace the slowest task by its fastest variant until all devices are used (lines 12 to 17)."""
        tasks, seconds = [*tasks], [self._seconds(task) for task in tasks]
        for _ in range(count - sum(task.devices for task in tasks)):
            place = seconds.index(max(seconds))
            tasks[place] = min(self._variants(tasks[place]), key=self._seconds)
            seconds[place] = self._seconds(tasks[place])
        return tasks

    def stage(self, task: TaskVariant, boards: Sequence[str]) -> PipelineStage:
        """Return a task as a stage."""
        shares = self._shares(task) if task.sharing == "shards" else ()
        return PipelineStage(steps=task.steps, boards=tuple(boards), sharing=task.sharing, shares=shares)

    def _memory(self, steps: range) -> int:
        held = self._workload.steps[steps.start : steps.stop]
        return sum(step.weight_bytes for step in held) + max(step.working_bytes for step in held)

    def _variants(self, task: TaskVariant) -> list[TaskVariant]:
        """Return a task's variants on one device more: data-parallel, and model-parallel where there are parts enough."""
        found = [TaskVariant(steps=task.steps, devices=task.devices + 1, sharing="replicas")]
        if len(self._components(task.steps)) > task.devices:
            found.insert(0, TaskVariant(steps=task.steps, devices=task.devices + 1, sharing="shards"))
        return found

    def _components(self, steps: range) -> Components:
        if steps not in self._parts:
            self._parts[steps] = components_of(self._workload, steps)
        return self._parts[steps]

    def _shares(self, task: TaskVariant) -> tuple[tuple[int, ...], ...]:
        """Return the steps of each device of a model-parallel task: its components, dealt out evenly."""
        components, shares = self._components(task.steps), []
        for device in range(task.devices):
            first, end = (len(components) * at // task.devices for at in (device, device + 1))
            shares.append(tuple(sorted(step for component in components[first:end] for step in component)))
        return tuple(shares)

    def _seconds(self, task: TaskVariant) -> float:
        """Return a task's estimated seconds an input: execution and communication."""
        if task not in self._known:
            shares = self._shares(task) if task.sharing == "shards" else (tuple(task.steps),)
            seconds = max(self._one_device_s(share) for share in shares)
            self._known[task] = seconds / task.devices if task.sharing == "replicas" else seconds
        return self._known[task]

    def _one_device_s(self, steps: Sequence[int]) -> float:
        crosses = crossing(self._workload, self._uses, steps)
        nbytes = sum(self._uses[name].nbytes for name in (*crosses.inputs, *crosses.outputs))
        communication_s = 2 * self._latency_s + nbytes / self._bytes_per_s
        try:
            return hold(self._workload, self._uses, steps, self._device).service_s + communication_s
        except BudgetError:
            return float("inf")
