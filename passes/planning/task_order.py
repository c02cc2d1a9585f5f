"""The order of a few tasks that holds the least memory: a shortest path over the sets of tasks done, by their peak.

What is live between two tasks depends only on which are done, so a set is a state and needs to be left only once: by the
way that reached it with the lowest peak (Dijkstra's algorithm with the maximum in place of the sum). A task that is ready,
raises no peak and leaves no more live than before is done at once: whatever comes before it in a better order can as well
come behind it.

Beyond a number of states the search becomes a beam: of all states with as many tasks done, the few with the lowest peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

#: The beam looks at no more tasks of a state than this, the earliest in the given order.
WIDEST = 32


@dataclass(frozen=True, slots=True)
class RunStep:
    """One operator of a task: bytes it makes, bytes it needs beside (less than nothing in place), bytes that it frees.

    ``shared`` are tensors that other tasks read too: (bytes, tasks that must be done, as bits, for it to be freed here).
    """

    made: int
    beside: int
    freed: int
    shared: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """Operators that run one after the other; ``after`` are the tasks, as bits, whose results they read (so many bytes)."""

    after: int
    read_bytes: int
    steps: tuple[RunStep, ...]


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks in their given order, and the bytes that are live before the first."""

    tasks: tuple[Task, ...]
    live: int


@dataclass(frozen=True, slots=True)
class Found:
    """An order, or None where the given one has the lowest peak; whether that is proven; and the states it took."""

    order: tuple[int, ...] | None
    exact: bool
    states: int


#: A state on the way: the task done last, and the state before.
_Path = tuple[int, "_Path"] | None


def lowest_peak(tasks: Tasks, most_states: int) -> Found:
    """The order with the lowest peak; the given one if no order found is better."""
    given = peak(tasks, range(len(tasks.tasks)))
    if given <= _unavoidable(tasks):
        return Found(order=None, exact=True, states=0)
    exact, order, states = _shortest(tasks, given, most_states)
    if not exact:
        order = _beam(tasks, given, max(1, most_states // len(tasks.tasks)))
    return Found(order=order, exact=exact, states=states)


def peak(tasks: Tasks, order: Iterator[int] | range | tuple[int, ...]) -> int:
    """The most live bytes of an order."""
    live, done, most = tasks.live, 0, tasks.live
    for index in order:
        needed, live = _run(tasks.tasks[index], live, done)
        most, done = max(most, needed), done | 1 << index
    return most


def _run(task: Task, live: int, done: int) -> tuple[int, int]:
    """The most live bytes while a task runs, and those live afterwards."""
    most = 0
    for step in task.steps:
        live += step.made
        most = max(most, live + step.beside)
        live -= step.freed
        for nbytes, others in step.shared:
            if not others & ~done:
                live -= nbytes
    return most, live


def _unavoidable(tasks: Tasks) -> int:
    """What no order can go below: what is live at first, and every task alone with what it reads."""
    everything = (1 << len(tasks.tasks)) - 1
    least = tasks.live
    for task in tasks.tasks:
        least = max(least, _run(task, task.read_bytes, everything)[0])
    return least


def _shortest(tasks: Tasks, below: int, most_states: int) -> tuple[bool, tuple[int, ...] | None, int]:
    """Whether the search ended within so many states, the best order with a peak below ``below`` if any, and the states."""
    followers = _followers(tasks)
    everything = (1 << len(tasks.tasks)) - 1
    number = count()
    ready = tuple(index for index, task in enumerate(tasks.tasks) if not task.after)
    queue: list[tuple[int, int, int, int, int, tuple[int, ...], _Path]] = []
    heappush(queue, (tasks.live, 0, next(number), tasks.live, 0, ready, None))
    left: set[int] = set()
    while queue:
        most, fewer, _, live, done, ready, path = heappop(queue)
        if done == everything:
            return True, _unrolled(path), len(left)
        if done in left:
            continue
        left.add(done)
        if len(left) > most_states:
            return False, None, len(left)
        runs = [(index, *_run(tasks.tasks[index], live, done)) for index in ready]
        for index, needed, after in _free(runs, most, live) or runs:
            now = done | 1 << index
            if max(most, needed) < below and now not in left:
                then = _ready(tasks, followers, ready, index, now)
                heappush(queue, (max(most, needed), fewer - 1, next(number), after, now, then, (index, path)))
    return True, None, len(left)


def _beam(tasks: Tasks, below: int, width: int) -> tuple[int, ...] | None:
    """The best order found by keeping ``width`` states at a time; None if its peak is not below ``below``."""
    followers = _followers(tasks)
    ready = tuple(index for index, task in enumerate(tasks.tasks) if not task.after)
    states: dict[int, tuple[int, int, tuple[int, ...], _Path]] = {0: (tasks.live, tasks.live, ready, None)}
    for _ in tasks.tasks:
        following: dict[int, tuple[int, int, tuple[int, ...], _Path]] = {}
        for done, (most, live, ready, path) in states.items():
            runs = [(index, *_run(tasks.tasks[index], live, done)) for index in ready[:WIDEST]]
            for index, needed, after in _free(runs, most, live) or runs:
                now, worst = done | 1 << index, max(most, needed)
                if worst < below and (now not in following or worst < following[now][0]):
                    following[now] = (worst, after, _ready(tasks, followers, ready, index, now), (index, path))
        kept = sorted(following.items(), key=lambda item: item[1][:2])[:width]
        states = dict(kept)
    return next((_unrolled(path) for _, _, _, path in states.values()), None)


def _free(runs: list[tuple[int, int, int]], most: int, live: int) -> list[tuple[int, int, int]]:
    """The first task that raises no peak and leaves no more live, if there is one."""
    return next(([run] for run in runs if run[1] <= most and run[2] <= live), [])


def _followers(tasks: Tasks) -> list[list[int]]:
    followers: list[list[int]] = [[] for _ in tasks.tasks]
    for index, task in enumerate(tasks.tasks):
        before = task.after
        while before:
            lowest = before & -before
            followers[lowest.bit_length() - 1].append(index)
            before ^= lowest
    return followers


def _ready(tasks: Tasks, followers: list[list[int]], ready: tuple[int, ...], index: int, done: int) -> tuple[int, ...]:
    """The tasks that are ready when ``index`` is done, too, in the given order."""
    new = [follower for follower in followers[index] if not tasks.tasks[follower].after & ~done]
    rest = [other for other in ready if other != index]
    return tuple(sorted((*rest, *new))) if new else tuple(rest)


def _unrolled(path: _Path) -> tuple[int, ...]:
    order = []
    while path is not None:
        index, path = path
        order.append(index)
    return tuple(reversed(order))
