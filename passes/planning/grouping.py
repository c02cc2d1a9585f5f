"""Bring operators that can be tiled together next to each other, since a region is a run of operators.

Between the operators of an attention stand others that none of them waits for, because the exporter, or the order with the
lowest peak, put them there. They go before::

    key ─ Transpose ─ value ─ Reshape ─ MatMul ...     becomes     value ─ Reshape ─ key ─ Transpose ─ MatMul ...
"""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from hyps.passes.graph import Graph


def grouped_order(graph: Graph, tileable: Collection[str]) -> tuple[int, ...]:
    """Return the indices of the operators, connected ones of ``tileable`` next to each other where they can be."""
    order = list(range(len(graph.operators)))
    members = [index for index, operator in enumerate(graph.operators) if operator.name in tileable]
    for component in sorted(nx.weakly_connected_components(graph.dag.subgraph(members)), key=min):
        position = {index: place for place, index in enumerate(order)}
        start, stop = min(position[index] for index in component), max(position[index] for index in component) + 1
        dependent: dict[int, None] = {}
        for index in order[start:stop]:
            if index in component or not dependent.keys().isdisjoint(graph.dag.pred[index]):
                dependent[index] = None
        order[start:stop] = [*(index for index in order[start:stop] if index not in dependent), *dependent]
    return tuple(order)
