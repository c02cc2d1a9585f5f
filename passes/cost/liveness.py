"""Compute the live range of every tensor, which gives the bytes live at every operator and across every cut.

Operators are numbered 0..n-1 in execution order. A cut at position p runs between operators p-1 and p; position 0 is
before the first operator and position n after the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyps.passes.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRange:
    """The operators during which a tensor is in memory: ``first`` writes it, ``last`` is the last one that reads it.

    A graph input has ``first`` -1. A graph output is held to the end: its ``last`` is the number of operators.
    """

    first: int
    last: int


def live_ranges(graph: Graph) -> Mapping[str, LiveRange]:
    """Return the live range of every tensor but the weights; one that nothing reads ends where it starts."""
    first = dict.fromkeys(graph.inputs, -1)
    last = dict(first)
    for index, operator in enumerate(graph.operators):
        for name in operator.inputs:
            last[name] = index
        for name in operator.outputs:
            first[name] = last[name] = index
    for name in graph.outputs:
        last[name] = len(graph.operators)
    return {name: LiveRange(first=first[name], last=last[name]) for name in first}
