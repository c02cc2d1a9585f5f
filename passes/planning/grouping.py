"""Operators that can be tiled together brought next to each other: a region is a run of operators.

Between those of an attention stand others that none of them need wait for, because the exporter, or the order of the lowest
peak, put them there. They go before::

    key ─ Transpose ─ value ─ Reshape ─ MatMul ...     becomes     value ─ Reshape ─ key ─ Transpose ─ MatMul ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hyps.passes.graph import Graph


def gathered_order(graph: Graph, tileable: Collection[str]) -> tuple[int, ...]:
    """The indices of the operators, those of ``tileable`` that read each other next to each other where they can be."""
    order = list(range(len(graph.operators)))
    for island in _islands(graph, tileable):
        place = {index: position for position, index in enumerate(order)}
        start, stop = min(place[index] for index in island), max(place[index] for index in island) + 1
        waiting: dict[int, None] = {}
        made: set[str] = set()
        for index in order[start:stop]:
            operator = graph.operators[index]
            if index in island or not made.isdisjoint(operator.inputs):
                waiting[index] = None
                made.update(operator.outputs)
        order[start:stop] = [*(index for index in order[start:stop] if index not in waiting), *waiting]
    return tuple(order)


def _islands(graph: Graph, tileable: Collection[str]) -> Iterator[set[int]]:
    """The operators of ``tileable`` in sets between which nothing is read."""
    island: dict[str, set[int]] = {}
    for index, operator in enumerate(graph.operators):
        if operator.name in tileable:
            joined = {index}
            for name in operator.inputs:
                joined |= island.get(name, set())
            for member in joined:
                island |= dict.fromkeys(graph.operators[member].outputs, joined)
    yield from {id(members): members for members in island.values()}.values()
