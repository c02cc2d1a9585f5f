"""When each tensor is born and last read, and what that makes live at every operator and across every cut.

Operators are numbered 0..n-1 in execution order. A cut at position p runs between operators p-1 and p; position 0 is
before the first operator and position n behind the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyps.passes.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """A tensor is written by operator ``born`` (-1: a graph input) and last read by operator ``last``.

    A graph output is held to the end: its ``last`` is the number of operators.
    """

    born: int
    last: int


def lifetimes(graph: Graph) -> Mapping[str, Lifetime]:
    """The lifetime of every tensor (weights apart); one that nothing reads dies where it is born."""
    born = dict.fromkeys(graph.inputs, -1)
    last = dict(born)
    for index, operator in enumerate(graph.operators):
        for name in operator.inputs:
            last[name] = index
        for name in operator.outputs:
            born[name] = last[name] = index
    for name in graph.outputs:
        last[name] = len(graph.operators)
    return {name: Lifetime(born=born[name], last=last[name]) for name in born}
