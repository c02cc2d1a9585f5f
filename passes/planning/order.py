"""Find the order of a graph's operators with the lowest peak of live activations.

Operators that onnxruntime computes as one stay together, in their given order: each fusion group is a task. A task divides
the graph if every other task is its ancestor or its descendant::

    x ─ a ┬─ b ─ c ─┐             b, c and d can be ordered in several ways,
          └─ d ─────┴─ e ─ f      a, e and f in only one

`hyps.passes.planning.task_order` finds the best order of the block between two such tasks. The search is exact while a
block takes at most `BLOCK_STATES` sets of tasks, and all blocks together at most that plus `OPERATOR_STATES` per operator.
Beyond that it is a beam search over as many sets. The given order is kept unless the search finds a better one. Kaboubi
(section 3.2.2) and Hadidi keep the order of the model file.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint
from hyps.passes.graph import Graph
from hyps.passes.planning.task_order import Task, TaskGraph, TaskOrder, TaskStep, lowest_peak_task_order

BLOCK_STATES = 20_000
OPERATOR_STATES = 10

FusionGroup = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOrder:
    """The indices of the operators in a new order, and whether no other order has a lower peak."""

    order: tuple[int, ...]
    exact: bool


def lowest_peak_order(
    graph: Graph, footprints: Mapping[str, Footprint], fused: Sequence[FusionGroup], stages: Sequence[int] = ()
) -> OperatorOrder:
    """Return the order with the lowest peak that keeps each ``fused`` group together; the given one if that is no higher.

    ``stages``, if there are any, is a number for each operator that never falls: operators of one number stay before those
    of the next. A group in several stages is not kept together.
    """
    if stages:
        fused = [group for group in fused if len({stages[index] for index in group}) == 1]
    contraction = _contraction(graph, fused)
    groups = contraction.groups
    builder = _TaskBuilder(graph, footprints, contraction)
    known: dict[TaskGraph, TaskOrder] = {}
    states = BLOCK_STATES + OPERATOR_STATES * len(graph.operators)
    order: list[int] = []
    exact = True
    ends = {place for place, (a, b) in enumerate(itertools.pairwise(groups)) if stages and stages[a[0]] < stages[b[0]]}
    for first, stop in _blocks(contraction.before, ends):
        if stop - first == 1:
            order += groups[first]
            continue
        tasks = builder.tasks(first, stop)
        if tasks not in known:
            known[tasks] = lowest_peak_task_order(tasks, min(states, BLOCK_STATES))
            states -= known[tasks].states
        found = known[tasks]
        exact &= found.exact
        order += itertools.chain.from_iterable(groups[first + index] for index in found.order or range(stop - first))
    given = tuple(range(len(graph.operators)))
    is_regrouped = list(itertools.chain.from_iterable(groups)) != list(given)
    if is_regrouped and _peak(graph, footprints, order) >= _peak(graph, footprints, given):
        return OperatorOrder(order=given, exact=exact)
    return OperatorOrder(order=tuple(order), exact=exact)


def _peak(graph: Graph, footprints: Mapping[str, Footprint], order: Sequence[int]) -> int:
    return int(costs(reordered(graph, order), footprints).activations_from(0)[-1])


def reordered(graph: Graph, order: Sequence[int]) -> Graph:
    """Return the same graph with its operators in another order."""
    return replace(graph, operators=tuple(graph.operators[index] for index in order))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contraction:
    """Groups of operators in a topological order; ``before`` are the positions of the groups that each reads from."""

    groups: tuple[FusionGroup, ...]
    before: tuple[frozenset[int], ...]


def _contraction(graph: Graph, fused: Sequence[FusionGroup]) -> _Contraction:
    """Return the operators in groups that stay together, in the topological order that is nearest to the given one.

    Groups that depend on each other cannot stay together. Then all operators from the first to the last of a group do.
    """
    try:
        return _contracted(graph, fused)
    except nx.NetworkXUnfeasible:
        spans: list[FusionGroup] = []
        for group in fused:
            span = tuple(range(group[0], group[-1] + 1))
            if spans and span[0] <= spans[-1][-1]:
                span = tuple(range(spans[-1][0], max(spans.pop()[-1], span[-1]) + 1))
            spans.append(span)
        return _contracted(graph, spans)


def _contracted(graph: Graph, fused: Sequence[FusionGroup]) -> _Contraction:
    """Contract every group to one node, and sort the nodes; raises `networkx.NetworkXUnfeasible` if they form a cycle."""
    grouped = {index for group in fused for index in group}
    groups = sorted([*fused, *((index,) for index in range(len(graph.operators)) if index not in grouped)])
    if any(
        group[-1] - group[0] >= len(group) for group in fused
    ):  # other groups are sorted: they are runs of the given order
        contracted = nx.condensation(graph.dag, groups)  # takes any partition of the nodes, not only its strong components
        groups = [groups[number] for number in nx.lexicographical_topological_sort(contracted)]
    position = {index: place for place, group in enumerate(groups) for index in group}
    writers = graph.dag.pred
    return _Contraction(
        groups=tuple(groups),
        before=tuple(
            frozenset(position[writer] for index in group for writer in writers[index]) - {place}
            for place, group in enumerate(groups)
        ),
    )


class _TaskBuilder:
    """Makes the tasks of a block from who writes and reads each tensor, by the positions of groups."""

    def __init__(self, graph: Graph, footprints: Mapping[str, Footprint], contraction: _Contraction) -> None:
        self._graph = graph
        self._prints = footprints
        self._groups, self._before = contraction.groups, contraction.before
        self._outputs = frozenset(graph.outputs)
        position = {index: place for place, group in enumerate(self._groups) for index in group}
        self._writer = {name: position[index] for index, each in enumerate(graph.operators) for name in each.outputs}
        self._readers: dict[str, set[int]] = {}
        for index, operator in enumerate(graph.operators):
            for name in operator.inputs:
                self._readers.setdefault(name, set()).add(position[index])

    def tasks(self, first: int, stop: int) -> TaskGraph:
        """Return the groups ``first .. stop-1`` as tasks; no edge of the graph may bypass them."""
        later_readers: dict[str, int] = {}
        tasks = tuple(self._task(position, first, later_readers) for position in range(first, stop))
        entering = sum(self._graph.tensors[name].nbytes for name in later_readers if self._writer[name] < first)
        return TaskGraph(tasks, entering)

    def _task(self, position: int, first: int, later_readers: dict[str, int]) -> Task:
        """Return one group; ``later_readers`` collects, by tensor, the groups from ``first`` on that read it, as bits."""
        group = self._groups[position]
        last_use = {name: index for index in group for name in self._freeable(index)}
        steps = []
        for index in group:
            operator = self._graph.operators[index]
            footprint = self._prints[operator.name]
            freed, shared = 0, []
            for name in self._freeable(index):
                if name not in later_readers:
                    readers = self._readers.get(name, ())
                    later_readers[name] = sum(1 << reader - first for reader in readers if reader >= first)
                if last_use[name] == index:
                    nbytes, others = self._graph.tensors[name].nbytes, later_readers[name] & ~(1 << position - first)
                    if others or self._writer[name] != position:
                        shared.append((nbytes, others))
                    else:
                        freed += nbytes
            reused = footprint.in_place_bytes if footprint.in_place_input in self._writer else 0
            made = sum(self._graph.tensors[name].nbytes for name in operator.outputs)
            steps.append(TaskStep(made, footprint.workspace_bytes - reused, freed, tuple(shared)))
        predecessors = sum(1 << before - first for before in self._before[position] if before >= first)
        read_bytes = sum(self._graph.tensors[name].nbytes for name in last_use if self._writer[name] != position)
        return Task(predecessors, read_bytes, tuple(steps))

    def _freeable(self, index: int) -> dict[str, None]:
        """Return what an operator reads and writes, except the model's inputs and outputs, which are held throughout."""
        operator = self._graph.operators[index]
        names = dict.fromkeys((*operator.inputs, *operator.outputs))
        return {name: None for name in names if name in self._writer and name not in self._outputs}


def _blocks(before: Sequence[frozenset[int]], ends: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Yield (first, stop) of the runs of groups that end with a dividing one: every other is its ancestor or descendant.

    A block ends at each of ``ends``, too. What bypasses such an end is live there in every order.

    No edge bypasses that group, all groups before it are read by others, and all groups after it read from others.
    networkx could tell only from the transitive closure, which is quadratic; this sweep takes 0.02 s for 100,000 groups.
    """
    count = len(before)
    passing = [0] * (count + 1)
    is_read = [False] * count
    for position, writers in enumerate(before):
        for writer in writers:
            is_read[writer] = True
            passing[writer + 1] += 1
            passing[position] -= 1
    last_source = max((position for position, writers in enumerate(before) if not writers), default=0)
    first, level, all_read = 0, 0, True
    for position in range(count):
        level += passing[position]
        if (not level and all_read and position >= last_source) or position == count - 1 or position in ends:
            yield first, position + 1
            first = position + 1
        all_read &= is_read[position]
