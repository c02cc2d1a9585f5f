"""Merge the nodes of a large graph, so that a browser can draw it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from hyps.compiler.report.facts import Edge, Node

#: The most nodes that are drawn one by one: a browser still moves the SVG elements of that many smoothly.
MOST_NODES = 1_500
#: The number of nodes that a larger graph is merged into.
RUN_NODES = 1_000


def in_runs(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Return the nodes and edges to draw; more than `MOST_NODES` nodes become runs of neighbours in the schedule.

    No run crosses a partition's border.
    """
    if len(nodes) <= MOST_NODES:
        return tuple(nodes), tuple(edges)
    length = math.ceil(len(nodes) / RUN_NODES)
    runs: list[tuple[Node, ...]] = []
    for _, group in itertools.groupby(nodes, key=lambda node: node.part):
        own = tuple(group)
        runs += [own[start : start + length] for start in range(0, len(own), length)]
    home = [index for index, run in enumerate(runs) for _ in run]
    sums: dict[tuple[int, int], int] = {}
    for source, target, nbytes in edges:
        if (pair := (home[source], home[target])) and pair[0] != pair[1]:
            sums[pair] = sums.get(pair, 0) + nbytes
    return tuple(map(_run, runs)), tuple((*pair, nbytes) for pair, nbytes in sums.items())


def _run(nodes: tuple[Node, ...]) -> Node:
    if len(nodes) == 1:
        return nodes[0]
    kinds = dict.fromkeys(node.kind for node in nodes)
    return replace(
        nodes[0],
        name=f"{nodes[0].name} … {nodes[-1].name}",
        kind=f"{len(nodes)} operators",
        shard=next((node.shard for node in nodes if node.shard), ""),
        output_bytes=nodes[-1].output_bytes,
        notes=(f"{len(nodes)} operators of types {', '.join(kinds)}",),
        members=tuple(node.name for node in nodes),
    )
