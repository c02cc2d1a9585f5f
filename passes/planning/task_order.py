"""Find the order of a few tasks that holds the least memory: a shortest path over the sets of finished tasks, by peak.

What is live between two tasks depends only on which are finished. So a set of tasks is a state, and a state needs to be
left only once: along the path that reached it with the lowest peak (Dijkstra's algorithm with the maximum in place of the
sum). A ready task that raises no peak and leaves no more bytes live than before runs at once. Whatever a better order runs
before such a task can as well run after it.

Beyond a given number of states the search becomes a beam: of all states with equally many finished tasks it keeps
those with the lowest peaks. So it does where far more states wait than are visited: thousands of tasks are ready at once
in a model with thousands of outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

#: The beam looks at no more ready tasks of a state than this, the earliest in the given order.
BEAM_READY_TASKS = 32
#: The most states that may wait for each one that may be visited.
WAITING_STATES = 16


class TaskStep(NamedTuple):
    """One operator of a task: the bytes that it makes, needs only while it runs (negative: in place), and frees.

    ``shared`` are tensors that other tasks read, too: (bytes, tasks as bits); the bytes are freed once those are finished.
    """

    made_bytes: int
    extra_bytes: int
    freed_bytes: int
    shared: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """Operators that run one after the other; ``predecessors``, as bits, are the tasks whose results they read."""

    predecessors: int
    read_bytes: int
    steps: tuple[TaskStep, ...]


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """Tasks in their given order, and the bytes that are live before the first."""

    tasks: tuple[Task, ...]
    live_bytes: int


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """The best order that was found, whether no other has a lower peak, and the number of states that were visited.

    ``order`` is None where none was better than the given one.
    """

    order: tuple[int, ...] | None
    exact: bool
    states: int


#: A path to a state: the task that finished last, and the path before it.
_Path = tuple[int, "_Path"] | None
#: A state of the beam search: its peak, its live bytes, the ready tasks, the path.
_State = tuple[int, int, tuple[int, ...], _Path]
#: A task that runs next: its index, the most live bytes meanwhile, and the live bytes afterwards.
_Run = tuple[int, int, int]


def lowest_peak_task_order(graph: TaskGraph, max_states: int) -> TaskOrder:
    """Return the order with the lowest peak; searches exactly up to ``max_states``, by a beam beyond."""
    given_peak = peak(graph, range(len(graph.tasks)))
    if given_peak <= _lower_bound(graph):
        return TaskOrder(order=None, exact=True, states=0)
    found = _shortest_path(graph, given_peak, max_states)
    if found.exact:
        return found
    order = _beam_search(graph, given_peak, max(1, max_states // len(graph.tasks)))
    return TaskOrder(order=order, exact=False, states=found.states)


def peak(graph: TaskGraph, order: Iterable[int]) -> int:
    """Return the most live bytes of an order."""
    live, finished, highest = graph.live_bytes, 0, graph.live_bytes
    for index in order:
        needed, live = _run(graph.tasks[index], live, finished)
        highest, finished = max(highest, needed), finished | 1 << index
    return highest


def _run(task: Task, live: int, finished: int) -> tuple[int, int]:
    """Return the most live bytes while a task runs, and the live bytes afterwards."""
    highest, unfinished = 0, ~finished
    for made, extra, freed, shared in task.steps:
        live += made
        if live + extra > highest:
            highest = live + extra
        live -= freed
        for nbytes, readers in shared:
            if not readers & unfinished:
                live -= nbytes
    return highest, live


def _lower_bound(graph: TaskGraph) -> int:
    """Return a peak that no order can be below: what is live at first, and every task alone with what it reads."""
    everything = (1 << len(graph.tasks)) - 1
    return max([graph.live_bytes, *(_run(task, task.read_bytes, everything)[0] for task in graph.tasks)])


def _shortest_path(graph: TaskGraph, below: int, max_states: int) -> TaskOrder:
    """Return the best order with a peak below ``below``; not exact where the search ended at ``max_states``."""
    successors = _successors(graph)
    everything = (1 << len(graph.tasks)) - 1
    number = count()
    ready = tuple(index for index, task in enumerate(graph.tasks) if not task.predecessors)
    queue: list[tuple[int, int, int, int, int, tuple[int, ...], _Path]] = []  # `ready` is that before the path's last task
    heappush(queue, (graph.live_bytes, 0, next(number), graph.live_bytes, 0, ready, None))
    visited: set[int] = set()
    while queue:
        highest, unfinished, _, live, finished, ready, path = heappop(queue)
        if finished == everything:
            return TaskOrder(order=_path_order(path), exact=True, states=len(visited))
        if finished in visited:
            continue
        visited.add(finished)
        ready = ready if path is None else _ready_after(graph, successors, ready, path[0], finished)
        if len(visited) > max_states or len(queue) > WAITING_STATES * max_states:
            return TaskOrder(order=None, exact=False, states=len(visited))
        for index, needed, live_after in _runs(graph, ready, highest, live, finished):
            now, worst = finished | 1 << index, max(highest, needed)
            if worst < below and now not in visited:
                heappush(queue, (worst, unfinished - 1, next(number), live_after, now, ready, (index, path)))
    return TaskOrder(order=None, exact=True, states=len(visited))


def _beam_search(graph: TaskGraph, below: int, width: int) -> tuple[int, ...] | None:
    """Return the best order found by keeping ``width`` states at a time; None if its peak is not below ``below``."""
    successors = _successors(graph)
    ready = tuple(index for index, task in enumerate(graph.tasks) if not task.predecessors)
    states: dict[int, _State] = {0: (graph.live_bytes, graph.live_bytes, ready, None)}
    for _ in graph.tasks:
        following: dict[int, _State] = {}
        for finished, (highest, live, ready, path) in states.items():
            for index, needed, live_after in _runs(graph, ready[:BEAM_READY_TASKS], highest, live, finished):
                now, worst = finished | 1 << index, max(highest, needed)
                if worst < below and (now not in following or worst < following[now][0]):
                    following[now] = (worst, live_after, ready, (index, path))
        best = sorted(following.items(), key=lambda item: item[1][:2])[:width]
        states = {now: _with_ready(graph, successors, now, state) for now, state in best}
    return next((_path_order(path) for _, _, _, path in states.values()), None)


def _runs(graph: TaskGraph, ready: tuple[int, ...], highest: int, live: int, finished: int) -> list[_Run]:
    """Return how each ready task would run; or only the first that raises no peak and leaves no more bytes live."""
    runs, tasks, unfinished = [], graph.tasks, ~finished
    for index in ready:
        needed, live_after = 0, live
        for made, extra, freed, shared in tasks[index].steps:  # as `_run`, whose call would take a third of the time
            live_after += made
            if live_after + extra > needed:
                needed = live_after + extra
            live_after -= freed
            for nbytes, readers in shared:
                if not readers & unfinished:
                    live_after -= nbytes
        if needed <= highest and live_after <= live:
            return [(index, needed, live_after)]
        runs.append((index, needed, live_after))
    return runs


def _successors(graph: TaskGraph) -> list[list[int]]:
    """Return for every task the tasks that read its results."""
    successors: list[list[int]] = [[] for _ in graph.tasks]
    for index, task in enumerate(graph.tasks):
        remaining = task.predecessors
        while remaining:
            lowest = remaining & -remaining
            successors[lowest.bit_length() - 1].append(index)
            remaining ^= lowest
    return successors


def _ready_after(
    graph: TaskGraph, successors: list[list[int]], ready: tuple[int, ...], index: int, finished: int
) -> tuple[int, ...]:
    """Return the tasks that are ready once ``index``, too, is finished, in the given order."""
    new = [successor for successor in successors[index] if not graph.tasks[successor].predecessors & ~finished]
    rest = [other for other in ready if other != index]
    return tuple(sorted((*rest, *new))) if new else tuple(rest)


def _with_ready(graph: TaskGraph, successors: list[list[int]], finished: int, state: _State) -> _State:
    """Return a state whose ready tasks are those before the last task of its path with those after it."""
    highest, live, ready, path = state
    assert path is not None
    return highest, live, _ready_after(graph, successors, ready, path[0], finished), path


def _path_order(path: _Path) -> tuple[int, ...]:
    """Return the tasks of a path, the first one first."""
    order = []
    while path is not None:
        index, path = path
        order.append(index)
    return tuple(reversed(order))
