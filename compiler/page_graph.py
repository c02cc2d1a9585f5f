"""Where the report's graph has its nodes and edges: a layered layout, whose ranks run like an ox ploughs.

A network is mostly one long chain, and no screen is that wide::

    0 -> 1 -> 2 -> 3
                   |         nodes of one rank (branches, shards) stand below each other
    7 <- 6 <- 5 <- 4

Of a model with more operators than a browser draws at once, neighbours in the schedule are drawn as one node.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hyps.compiler.page_facts import Edge, Node

#: More nodes than this are drawn in runs: so many SVG elements still move smoothly.
MOST_NODES = 1_500
#: Runs are as long as makes this many nodes.
RUN_NODES = 1_000
#: A node's box, the space between boxes, that between bands, and around all; in pixels at full size.
NODE_WIDTH, NODE_HEIGHT = 116, 46
GAP_X, GAP_Y, GAP_BAND, MARGIN = 30, 12, 44, 30
#: Width over height that is aimed at.
ASPECT = 1.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The left upper corner of every node, the SVG path of every edge, and the size of it all, in pixels."""

    places: tuple[tuple[float, float], ...]
    paths: tuple[str, ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Nodes in ranks, ``columns`` ranks in a band; ``slots`` is the place in the rank, ``filled`` how many there are."""

    ranks: tuple[int, ...]
    slots: tuple[int, ...]
    filled: tuple[int, ...]
    columns: int

    def tallest(self) -> list[int]:
        """The most nodes of a rank, in each band."""
        return [max(self.filled[start : start + self.columns]) for start in range(0, len(self.filled), self.columns)]

    def size(self) -> tuple[float, float]:
        """Width and height."""
        rows = self.tallest()
        used = min(self.columns, len(self.filled))
        height = sum(rows) * (NODE_HEIGHT + GAP_Y) + len(rows) * (GAP_BAND - GAP_Y) - GAP_BAND
        return 2 * MARGIN + used * (NODE_WIDTH + GAP_X) - GAP_X, 2 * MARGIN + height


def in_runs(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Nodes as they are drawn: more than `MOST_NODES` in runs of neighbours in the schedule, of one partition each."""
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


def layout(count: int, edges: Sequence[Edge]) -> Layout:
    """Place ``count`` nodes; every edge goes from a node to a later one."""
    if not count:
        return Layout(places=(), paths=(), width=2 * MARGIN, height=2 * MARGIN)
    ranks = _ranks(count, edges)
    slots, filled = _slots(ranks, edges)
    tries = [_Grid(ranks=ranks, slots=slots, filled=filled, columns=columns) for columns in _columns(len(filled))]
    grid = min(tries, key=lambda one: abs(math.log(one.size()[0] / one.size()[1] / ASPECT)))
    return _placed(grid, edges)


def _columns(ranks: int) -> list[int]:
    """The numbers of ranks in a band that are tried."""
    steps = (int(4 * 1.12**power) for power in range(60))
    return sorted({min(ranks, step) for step in steps})


def _ranks(count: int, edges: Sequence[Edge]) -> tuple[int, ...]:
    """The longest way from a start; a node that reads none stands right before its first reader."""
    ranks = [0] * count
    readers: dict[int, list[int]] = {}
    reads = {target for _, target, _ in edges}
    for source, target, _ in sorted(edges, key=lambda edge: edge[1]):
        ranks[target] = max(ranks[target], ranks[source] + 1)
        readers.setdefault(source, []).append(target)
    for index, targets in readers.items():
        if index not in reads:
            ranks[index] = max(0, min(ranks[target] for target in targets) - 1)
    used = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    return tuple(used[rank] for rank in ranks)


def _slots(ranks: Sequence[int], edges: Sequence[Edge]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The place of every node in its rank, near those that it reads; and how many nodes each rank has."""
    members: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
    for index, rank in enumerate(ranks):
        members[rank].append(index)
    reads: dict[int, list[int]] = {}
    for source, target, _ in edges:
        reads.setdefault(target, []).append(source)
    slots = [0] * len(ranks)
    middles = [0.0] * len(ranks)
    for own in members:
        wanted = {index: _mean([middles[source] for source in reads.get(index, ())]) for index in own}
        for slot, index in enumerate(sorted(own, key=lambda index: (wanted[index], index))):
            slots[index] = slot
            middles[index] = slot - (len(own) - 1) / 2
    return tuple(slots), tuple(map(len, members))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _placed(grid: _Grid, edges: Sequence[Edge]) -> Layout:
    rows = grid.tallest()
    tops = [float(MARGIN)]
    for tallest in rows:
        tops.append(tops[-1] + tallest * (NODE_HEIGHT + GAP_Y) - GAP_Y + GAP_BAND)
    above = [  # the upper edge of every rank
        tops[rank // grid.columns] + (rows[rank // grid.columns] - filled) * (NODE_HEIGHT + GAP_Y) / 2
        for rank, filled in enumerate(grid.filled)
    ]
    places = tuple(
        (MARGIN + _column(grid, rank) * (NODE_WIDTH + GAP_X), above[rank] + slot * (NODE_HEIGHT + GAP_Y))
        for rank, slot in zip(grid.ranks, grid.slots, strict=True)
    )
    width, height = grid.size()
    paths = tuple(_path(grid, above, places, source, target) for source, target, _ in edges)
    return Layout(places=places, paths=paths, width=width, height=height)


def _column(grid: _Grid, rank: int) -> int:
    """Every other band runs backward."""
    band, column = divmod(rank, grid.columns)
    return min(grid.columns, len(grid.filled)) - 1 - column if band % 2 else column


def _path(grid: _Grid, above: Sequence[float], places: Sequence[tuple[float, float]], source: int, target: int) -> str:
    """To the next rank straight, over others of the band in an arc above them, to another band from below to above."""
    (ax, ay), (bx, by) = places[source], places[target]
    first, last = grid.ranks[source], grid.ranks[target]
    if first // grid.columns != last // grid.columns:
        x, y, to_x = ax + NODE_WIDTH / 2, ay + NODE_HEIGHT, bx + NODE_WIDTH / 2
        half = (y + by) / 2
        return f"M{x:g} {y:g}C{x:g} {half:g} {to_x:g} {half:g} {to_x:g} {by:g}"
    x, to_x = (ax + NODE_WIDTH, bx) if bx > ax else (ax, bx + NODE_WIDTH)
    y, to_y = ay + NODE_HEIGHT / 2, by + NODE_HEIGHT / 2
    if last - first == 1:
        half = (x + to_x) / 2
        return f"M{x:g} {y:g}C{half:g} {y:g} {half:g} {to_y:g} {to_x:g} {to_y:g}"
    rise = min(above[first + 1 : last]) - min(GAP_BAND - 10, 6 + 4 * (last - first))
    out = GAP_X if bx > ax else -GAP_X
    return (
        f"M{x:g} {y:g}C{x + out:g} {y:g} {x:g} {rise:g} {x + 2 * out:g} {rise:g}"
        f"L{to_x - 2 * out:g} {rise:g}C{to_x:g} {rise:g} {to_x - out:g} {to_y:g} {to_x:g} {to_y:g}"
    )
