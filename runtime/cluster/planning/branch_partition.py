"""Partition a network's branches by the links between boards, with `mtkahypar` (the extra ``hyps[placement]``).

Nodes of the hypergraph are steps, those of one branch together, weighted by their seconds; a hyperedge is a tensor, weighted
by its bytes. The target graph is the boards; an edge's weight is the seconds of a byte between two of them. The Steiner-tree
objective is then what tensors cost on the links. It knows no order of steps: the evaluation judges what it finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from hyps.runtime.cluster.planning.branches import stages_of
from hyps.runtime.cluster.planning.crossing import TensorUse
from hyps.runtime.cluster.planning.partition_process import PartitionProblem, graph_partitions
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, Stages, Workload
from hyps.runtime.cluster.planning.shares import ParallelRun
from hyps.runtime.cluster.planning.transfers import link

#: By how much a board's seconds may be above its part of all, as fractions: balanced, and with less on the links.
_SPREADS = (0.05, 0.3, 1.0)
#: The largest integers for the seconds of all nodes, and for a tensor's bytes and a link's seconds a byte.
_ALL_SECONDS, _LARGEST = 1_000_000, 1_000


def partitioned_stages(
    workload: Workload,
    fleet: Fleet,
    uses: Mapping[str, TensorUse],
    blocks: Sequence[ParallelRun],
    boards: Sequence[Board],
) -> Iterator[Stages]:
    """Yield placements on up to all of some boards, the first two, three, ... of them; always the same."""
    nodes = _nodes(len(workload.steps), blocks)
    counts = range(2, min(len(boards), len(nodes) - 1) + 1)
    problems = [_problem(workload, fleet, uses, nodes, boards[:count], spread) for count in counts for spread in _SPREADS]
    for owners in graph_partitions([each for each in problems if each.edges]):
        if owners is None:
            continue
        names = [""] * len(workload.steps)
        for node, owner in zip(nodes, owners, strict=True):
            for number in node:
                names[number] = boards[owner].name
        yield stages_of(blocks, names)


def _nodes(count: int, blocks: Sequence[ParallelRun]) -> list[tuple[int, ...]]:
    """Return the steps of every node: each component of a block, and every other step."""
    inside = {number for block in blocks for number in range(block.start, block.stop)}
    alone = [(number,) for number in range(count) if number not in inside]
    return sorted([*alone, *(component for block in blocks for component in block.components)])


def _problem(
    workload: Workload,
    fleet: Fleet,
    uses: Mapping[str, TensorUse],
    nodes: Sequence[tuple[int, ...]],
    boards: Sequence[Board],
    spread: float,
) -> PartitionProblem:
    place = {number: at for at, node in enumerate(nodes) for number in node}
    edges, nbytes = list[list[int]](), list[float]()
    for use in uses.values():
        pins = sorted({place[number] for number in (use.maker, *use.readers) if number >= 0})
        if len(pins) > 1:
            edges.append(pins)
            nbytes.append(use.nbytes)
    seconds = [sum(min(workload.steps[number].seconds.values(), default=0.0) for number in node) for node in nodes]
    weights = [max(1, round(each / max(sum(seconds), 1e-12) * _ALL_SECONDS)) for each in seconds]
    speeds = [1 / max(sum(step.seconds.get(board.board_class, 1e9) for step in workload.steps), 1e-12) for board in boards]
    pairs = list(itertools.combinations(range(len(boards)), 2))
    return PartitionProblem(
        weights=weights,
        edges=edges,
        edge_weights=_integers(nbytes),
        pairs=pairs,
        costs=_integers([_seconds_a_byte(fleet, boards[one].name, boards[other].name) for one, other in pairs]),
        limits=[max(*weights, int(sum(weights) * speed / sum(speeds) * (1 + spread)) + 1) for speed in speeds],
        spread=spread,
    )


def _integers(values: Sequence[float]) -> list[int]:
    largest = max(values, default=0.0) or 1.0
    return [max(1, round(each / largest * _LARGEST)) for each in values]


def _seconds_a_byte(fleet: Fleet, one: str, other: str) -> float:
    """Return the mean of both ways: by a link of the pair, or by the hub."""
    ways = []
    for sender, receiver in ((one, other), (other, one)):
        direct = fleet.links.get((sender, receiver))
        hops = [direct] if direct else [link(fleet, sender, HUB), link(fleet, HUB, receiver)]
        ways.append(sum(1 / hop.bytes_per_s for hop in hops))
    return sum(ways) / 2
