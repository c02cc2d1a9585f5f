"""The order of a graph's operators with the lowest peak of live activations.

What onnxruntime computes as one stays together, in its given order: each fusion group is a task. A task that all others come
before or behind divides the graph, whatever the order::

    x ─ a ┬─ b ─ c ─┐             the orders of b, c and d matter to each other,
          └─ d ─────┴─ e ─ f      those of a, e and f to nobody

Between two such tasks the best order is found by `hyps.passes.planning.task_order`, exactly while it takes at most
`SEGMENT_STATES` sets of tasks (and all together at most that and `OPERATOR_STATES` an operator), with a beam of as many
beyond. Where it is no better the given order is kept. Kaboubi (section 3.2.2) and Hadidi keep the order that the model file
gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint
from hyps.passes.graph import Graph
from hyps.passes.planning.task_order import Found, RunStep, Task, Tasks, lowest_peak

SEGMENT_STATES = 20_000
OPERATOR_STATES = 10

FusionGroup = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """Indices of the operators in their new order, and whether no other order has a lower peak."""

    order: tuple[int, ...]
    exact: bool


def lowest_peak_order(graph: Graph, prints: Mapping[str, Footprint], fused: Sequence[FusionGroup]) -> Ordered:
    """The order with the lowest peak that keeps each ``fused`` group together; the given one where that is no higher."""
    groups = _contracted(graph, fused)
    known: dict[Tasks, Found] = {}
    left = SEGMENT_STATES + OPERATOR_STATES * len(graph.operators)
    order: list[int] = []
    exact = True
    places = _Places(graph, groups)
    for first, stop in _segments(places):
        if stop - first == 1:
            order += groups[first]
            continue
        tasks = places.tasks(prints, first, stop)
        if tasks not in known:
            known[tasks] = lowest_peak(tasks, min(left, SEGMENT_STATES))
            left -= known[tasks].states
        found = known[tasks]
        exact &= found.exact
        order += itertools.chain.from_iterable(groups[first + index] for index in found.order or range(stop - first))
    given = tuple(range(len(graph.operators)))
    if list(itertools.chain.from_iterable(groups)) != list(given) and _peak(graph, prints, order) >= _peak(
        graph, prints, given
    ):
        return Ordered(order=given, exact=exact)
    return Ordered(order=tuple(order), exact=exact)


def _peak(graph: Graph, prints: Mapping[str, Footprint], order: Sequence[int]) -> int:
    return int(costs(reordered(graph, order), prints).activations_from(0)[-1])


def reordered(graph: Graph, order: Sequence[int]) -> Graph:
    """The same graph, its operators in another order."""
    return replace(graph, operators=tuple(graph.operators[index] for index in order))


def _contracted(graph: Graph, groups: Sequence[FusionGroup]) -> tuple[FusionGroup, ...]:
    """The operators in groups that stay together, the groups in a topological order, as near the given one as can be.

    Groups that wait for each other cannot stay together: then all operators between the ends of groups do.
    """
    found = _sorted(graph, _whole(groups, len(graph.operators)))
    if found is None:
        spans: list[FusionGroup] = []
        for group in groups:
            span = tuple(range(group[0], group[-1] + 1))
            if spans and span[0] <= spans[-1][-1]:
                span = tuple(range(spans[-1][0], max(spans.pop()[-1], span[-1]) + 1))
            spans.append(span)
        found = tuple(_whole(spans, len(graph.operators)))
    return found


def _whole(groups: Sequence[FusionGroup], count: int) -> list[FusionGroup]:
    """All operators, those in no group as groups by themselves, by their first."""
    inside = {index for group in groups for index in group}
    return sorted([*groups, *((index,) for index in range(count) if index not in inside)])


def _sorted(graph: Graph, groups: list[FusionGroup]) -> tuple[FusionGroup, ...] | None:
    """The groups in the topological order that takes the first ready one each time; None if they form a cycle."""
    places = _Places(graph, groups)
    waits = [len(before) for before in places.before]
    followers: list[list[int]] = [[] for _ in groups]
    for place, before in enumerate(places.before):
        for other in before:
            followers[other].append(place)
    ready = [place for place, number in enumerate(waits) if not number]
    heapify(ready)
    found = []
    while ready:
        place = heappop(ready)
        found.append(groups[place])
        for follower in followers[place]:
            waits[follower] -= 1
            if not waits[follower]:
                heappush(ready, follower)
    return tuple(found) if len(found) == len(groups) else None


class _Places:
    """Where each tensor is written and read, in groups in a topological order."""

    def __init__(self, graph: Graph, groups: Sequence[FusionGroup]) -> None:
        self.graph = graph
        self.groups = groups
        self.outputs = frozenset(graph.outputs)
        place = {index: position for position, group in enumerate(groups) for index in group}
        self.writer = {name: place[index] for index, operator in enumerate(graph.operators) for name in operator.outputs}
        self.before: list[set[int]] = [set() for _ in groups]
        self.readers: dict[str, set[int]] = {}
        for index, operator in enumerate(graph.operators):
            for name in operator.inputs:
                self.readers.setdefault(name, set()).add(place[index])
                if name in self.writer and self.writer[name] != place[index]:
                    self.before[place[index]].add(self.writer[name])

    def tasks(self, prints: Mapping[str, Footprint], first: int, stop: int) -> Tasks:
        """The groups ``first .. stop-1``, which nothing before or behind reads or writes past."""
        read: dict[str, int] = {}
        tasks = tuple(self._task(prints, position, first, read) for position in range(first, stop))
        entering = sum(self.graph.tensors[name].nbytes for name in read if self.writer[name] < first)
        return Tasks(tasks, entering)

    def _task(self, prints: Mapping[str, Footprint], position: int, first: int, read: dict[str, int]) -> Task:
        """One group; ``read`` collects what may be freed once it is read, with the groups that read it as bits."""
        group = self.groups[position]
        last = {name: index for index in group for name in self._held(index)}
        steps = []
        for index in group:
            operator = self.graph.operators[index]
            footprint = prints[operator.name]
            freed, shared = 0, []
            for name in self._held(index):
                if name not in read:
                    read[name] = sum(1 << reader - first for reader in self.readers.get(name, ()) if reader >= first)
                if last[name] == index:
                    nbytes, others = self.graph.tensors[name].nbytes, read[name] & ~(1 << position - first)
                    if others or self.writer[name] != position:
                        shared.append((nbytes, others))
                    else:
                        freed += nbytes
            reused = footprint.in_place_bytes if footprint.in_place_input in self.writer else 0
            made = sum(self.graph.tensors[name].nbytes for name in operator.outputs)
            steps.append(RunStep(made, footprint.workspace_bytes - reused, freed, tuple(shared)))
        after = sum(1 << before - first for before in self.before[position] if before >= first)
        read_bytes = sum(self.graph.tensors[name].nbytes for name in last if self.writer[name] != position)
        return Task(after, read_bytes, tuple(steps))

    def _held(self, index: int) -> dict[str, None]:
        """What an operator reads and writes that is not held throughout: neither the model's inputs nor its outputs."""
        operator = self.graph.operators[index]
        names = dict.fromkeys((*operator.inputs, *operator.outputs))
        return {name: None for name in names if name in self.writer and name not in self.outputs}


def _segments(places: _Places) -> Iterator[tuple[int, int]]:
    """(first, stop) of the runs of groups that end with one which all others come before or behind.

    That is one which no reading passes by, before which all others are read, and behind which all others read.
    """
    count = len(places.groups)
    passing = [0] * (count + 1)
    read = [False] * count
    for position, before in enumerate(places.before):
        for writer in before:
            read[writer] = True
            passing[writer + 1] += 1
            passing[position] -= 1
    last_source = max((position for position, before in enumerate(places.before) if not before), default=0)
    first, level, all_read = 0, 0, True
    for position in range(count):
        level += passing[position]
        if (not level and all_read and position >= last_source) or position == count - 1:
            yield first, position + 1
            first = position + 1
        all_read &= read[position]
