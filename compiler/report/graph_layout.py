"""Where the report's graph has its nodes and edges: a layered layout, whose ranks run like an ox ploughs.

A network is mostly one long chain, and no screen is that wide::

    0 -> 1 -> 2 -> 3
                   |         nodes of one rank (branches, shards) stand below each other, many of them in a block
    7 <- 6 <- 5 <- 4

Of a model with more operators than a browser draws at once, neighbours in the schedule are drawn as one node.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hyps.compiler.report.facts import Edge, Node

#: More nodes than this are drawn in runs: so many SVG elements still move smoothly.
MOST_NODES = 1_500
#: Runs are as long as makes this many nodes.
RUN_NODES = 1_000
#: A node's box, the space between boxes, that between bands, and around all; in pixels at full size.
NODE_WIDTH, NODE_HEIGHT = 116, 46
GAP_X, GAP_Y, GAP_BAND, MARGIN = 30, 12, 44, 30
#: Width over height that is aimed at.
ASPECT = 1.9
#: More nodes of a rank than this stand in several columns.
TALL = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLayout:
    """The left upper corner of every node, the SVG path of every edge, and the size of it all, in pixels."""

    places: tuple[tuple[float, float], ...]
    paths: tuple[str, ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rank:
    """Where a rank is: its band, the columns before it there, those that it takes, and its rows."""

    band: int
    column: int
    breadth: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Nodes in ranks, and those in bands of so many columns at most; ``slots`` is a node's place in its rank."""

    of: tuple[int, ...]
    slots: tuple[int, ...]
    ranks: tuple[_Rank, ...]
    columns: int

    def tallest(self) -> list[int]:
        """The most rows of a rank, in each band."""
        return [max(rank.rows for rank in own) for _, own in itertools.groupby(self.ranks, key=lambda rank: rank.band)]

    def size(self) -> tuple[float, float]:
        """Width and height."""
        rows = self.tallest()
        height = sum(rows) * (NODE_HEIGHT + GAP_Y) + len(rows) * (GAP_BAND - GAP_Y) - GAP_BAND
        return 2 * MARGIN + self.columns * (NODE_WIDTH + GAP_X) - GAP_X, 2 * MARGIN + height


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


def graph_layout(count: int, edges: Sequence[Edge]) -> GraphLayout:
    """Place ``count`` nodes; every edge goes from a node to a later one."""
    if not count:
        return GraphLayout(places=(), paths=(), width=2 * MARGIN, height=2 * MARGIN)
    ranks = _ranks(count, edges)
    slots, filled = _slots(ranks, edges)
    tries = [_grid(ranks, slots, filled, columns) for columns in _columns(filled)]
    grid = min(tries, key=lambda one: abs(math.log(one.size()[0] / one.size()[1] / ASPECT)))
    return _placed(grid, edges)


def _grid(of: tuple[int, ...], slots: tuple[int, ...], filled: Sequence[int], columns: int) -> _Grid:
    """Ranks in bands of so many columns."""
    ranks: list[_Rank] = []
    band = used = widest = 0
    for count in filled:
        breadth = math.ceil(count / TALL)
        if used and used + breadth > columns:
            band, used = band + 1, 0
        ranks.append(_Rank(band=band, column=used, breadth=breadth, rows=math.ceil(count / breadth)))
        used += breadth
        widest = max(widest, used)
    return _Grid(of=of, slots=slots, ranks=tuple(ranks), columns=widest)


def _columns(filled: Sequence[int]) -> list[int]:
    """The numbers of columns in a band that are tried."""
    most = sum(math.ceil(count / TALL) for count in filled)
    steps = (int(4 * 1.12**power) for power in range(60))
    return sorted({min(most, step) for step in steps})


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


def _placed(grid: _Grid, edges: Sequence[Edge]) -> GraphLayout:
    rows = grid.tallest()
    tops = [float(MARGIN)]
    for tallest in rows:
        tops.append(tops[-1] + tallest * (NODE_HEIGHT + GAP_Y) - GAP_Y + GAP_BAND)
    above = [  # the upper edge of every rank
        tops[rank.band] + (rows[rank.band] - rank.rows) * (NODE_HEIGHT + GAP_Y) / 2 for rank in grid.ranks
    ]
    places = tuple(_place(grid, above, rank, slot) for rank, slot in zip(grid.of, grid.slots, strict=True))
    width, height = grid.size()
    paths = tuple(_path(grid, above, places, source, target) for source, target, _ in edges)
    return GraphLayout(places=places, paths=paths, width=width, height=height)


def _place(grid: _Grid, above: Sequence[float], index: int, slot: int) -> tuple[float, float]:
    """The corner of a node; every other band runs backward."""
    rank = grid.ranks[index]
    column, row = divmod(slot, rank.rows)
    column += rank.column
    if rank.band % 2:
        column = grid.columns - 1 - column
    return MARGIN + column * (NODE_WIDTH + GAP_X), above[index] + row * (NODE_HEIGHT + GAP_Y)


def _path(grid: _Grid, above: Sequence[float], places: Sequence[tuple[float, float]], source: int, target: int) -> str:
    """To the next rank straight, over others of the band in an arc above them, to another band from below to above."""
    (ax, ay), (bx, by) = places[source], places[target]
    first, last = grid.of[source], grid.of[target]
    if grid.ranks[first].band != grid.ranks[last].band:
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
