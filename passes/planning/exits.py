"""Find the exits of a network among its outputs, and order its operators so that each exit comes as early as it can.

Seifeddine (section 3.2.1): each exit is a classifier on the features at some depth. An exit's *stage* is what it needs
beyond what the exits before it need: a part of the trunk, and its own head. Operators are ordered stage by stage, so that a
cut after an exit's last operator leaves out all that only later exits need::

    x ─ a ┬─ b ┬─ c ─ scores         stages: a head1, b head2, c
          └─ head1  └─ head2
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from hyps.passes.cost.compute import multiply_adds
from hyps.passes.errors import UnknownExit
from hyps.passes.graph import Graph
from hyps.passes.planning.request import AUTO_EXITS, Request
from hyps.runtime.bundle.exits import class_count
from hyps.runtime.bundle.records.exits import MOST_EXITS

_SCORES = ("float16", "float32", "float64")


def with_resolved_exits(graph: Graph, request: Request) -> Request:
    """Return the request with the names of all exits in order, the last output included, and the rate of each.

    Raises `UnknownExit` for names that are no exits, or not in the order of their depth, and for rates that do not fit.
    """
    if not request.exits:
        if request.exit_rates:
            raise UnknownExit("--exit-rates is for a network with exits; give --exits too")
        return request
    depths = _Depths(graph)
    last = graph.outputs[-1]
    if request.exits == AUTO_EXITS:
        found = sorted((name for name in graph.outputs if _is_alike(graph, name, last)), key=depths.key)
        names = tuple(name for name in found if name == last or depths.is_before(name, last))
        if len(names) < 2:
            raise UnknownExit(f"no output before {last!r} has scores of the same classes; name exits with --exits NAME")
    else:
        names = (*request.exits, *(() if request.exits[-1] == last else (last,)))
    for name in names:
        _check_exit(graph, name, last)
    if not 2 <= len(names) <= MOST_EXITS or len(set(names)) < len(names):
        raise UnknownExit(
            f"--exits names {', '.join(names[:9])}; give 1 to {MOST_EXITS - 1} outputs, each once, and the last one, "
            f"{last!r}, last"
        )
    for before, after in itertools.pairwise(names):
        if not depths.is_before(before, last):
            raise UnknownExit(f"exit {before!r} is not between the input and {last!r}: the whole network computes before it")
        if not depths.is_before(before, after):
            ordered = ",".join(sorted(names[:-1], key=depths.key))
            raise UnknownExit(f"exit {after!r} is not deeper than {before!r}; give --exits {ordered}")
    return replace(request, exits=names, exit_rates=_rates(request.exit_rates, len(names)))


def _is_alike(graph: Graph, name: str, last: str) -> bool:
    """Return whether an output is a vector of scores of the last output's classes."""
    tensor, model = graph.tensors[name], graph.tensors[last]
    return tensor.dtype in _SCORES and 1 < class_count(tensor.shape) == class_count(model.shape)


def _check_exit(graph: Graph, name: str, last: str) -> None:
    if name not in graph.outputs:
        raise UnknownExit(f"exit {name!r} is no output of the model; its outputs are {', '.join(graph.outputs)}")
    if not _is_alike(graph, name, last):
        shape, classes = list(graph.tensors[name].shape), class_count(graph.tensors[last].shape)
        wanted = f"[1, {classes}]" if classes > 1 else "[1, C]"
        raise UnknownExit(f"exit {name!r} is {graph.tensors[name].dtype}{shape}, and no vector of class scores {wanted}")


def _rates(given: Sequence[float], count: int) -> tuple[float, ...]:
    """Return the rate of each exit: those given, and what is left for the last; all for the last if none are given."""
    rates = tuple(given) or (0.0,) * (count - 1)
    if len(rates) == count - 1:
        rates = (*rates, max(0.0, 1 - math.fsum(rates)))
    if len(rates) != count or any(not 0 <= rate <= 1 for rate in rates) or abs(math.fsum(rates) - 1) > 1e-6:
        raise UnknownExit(
            f"--exit-rates needs {count - 1} numbers from 0 to 1 with a sum of at most 1, one for each exit before the last"
        )
    return rates


class _Depths:
    """What the exits of a graph depend on."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._writers = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
        self._known: dict[str, frozenset[int]] = {}

    def needed(self, name: str) -> frozenset[int]:
        """Return the operators that make a tensor."""
        if name not in self._known:
            writer = self._writers.get(name)
            found = frozenset({writer, *nx.ancestors(self._graph.dag, writer)}) if writer is not None else frozenset[int]()
            self._known[name] = found
        return self._known[name]

    def key(self, name: str) -> tuple[int, int]:
        """Return the depth of an output: multiply-adds, then operators."""
        needed = self.needed(name)
        return sum(multiply_adds(self._graph, self._graph.operators[index]) for index in needed), len(needed)

    def is_before(self, name: str, other: str) -> bool:
        """Return whether a tensor depends on an input, and ``other`` needs operators that it does not, and costs more."""
        reads = {each for index in self.needed(name) for each in self._graph.operators[index].inputs}
        if reads.isdisjoint(self._graph.inputs):
            return False
        return not self.needed(other) <= self.needed(name) and self.key(name) < self.key(other)


def exit_stages(graph: Graph, exits: Sequence[str]) -> tuple[int, ...]:
    """Return the stage of each operator: the number of the first exit that needs it; the last stage if none does."""
    depths = _Depths(graph)
    stages = [max(0, len(exits) - 1)] * len(graph.operators)
    for stage, name in reversed([*enumerate(exits)]):
        for index in depths.needed(name):
            stages[index] = stage
    return tuple(stages)


def exit_positions(graph: Graph, exits: Sequence[str]) -> Mapping[str, int]:
    """Return the cut position after the operator that makes each exit."""
    writers = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    return {name: writers[name] + 1 for name in exits}


def exit_cuts(graph: Graph, request: Request) -> frozenset[int]:
    """Return the positions that are cut so that an inference may end there."""
    return frozenset(exit_positions(graph, request.exits[:-1]).values()) - {len(graph.operators)}


def reach_before(graph: Graph, request: Request, starts: Sequence[int]) -> Iterator[float]:
    """Yield the part of all inferences that runs the operators from each of ``starts`` on."""
    positions = exit_positions(graph, request.exits)
    rates = [(positions[name], rate) for name, rate in zip(request.exits, request.exit_rates, strict=True)]
    for start in starts:
        yield max(0.0, 1 - math.fsum(rate for position, rate in rates if position <= start))
