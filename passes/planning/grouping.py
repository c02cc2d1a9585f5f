"""Bring operators that can be tiled together next to each other, since a region is a run of operators.

The exporter, or the order with the lowest peak, may put unrelated operators between those of an attention block. Operators
that depend on none of the block's move in front of it::

    key ─ Transpose ─ value ─ Reshape ─ MatMul ...     becomes     value ─ Reshape ─ key ─ Transpose ─ MatMul ...
"""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from hyps.passes.graph import Graph


def grouped_order(graph: Graph, tileable: Collection[str]) -> tuple[int, ...]:
    """Return the operators' indices with connected ``tileable`` operators next to each other where possible."""
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
