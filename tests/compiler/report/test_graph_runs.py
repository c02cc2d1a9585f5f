"""Check how the nodes of a large graph are merged into runs."""

from __future__ import annotations

from hyps.compiler.report.facts import Node
from hyps.compiler.report.graph_runs import MOST_NODES, in_runs


def bare(name: str, part: int | None = None) -> Node:
    """Return a node with nothing but a name and a partition."""
    return Node(name=name, kind="Relu", part=part, shard="", output_bytes=1, notes=())


def test_runs_keep_to_partitions_and_lose_no_operator() -> None:
    count = 2 * MOST_NODES
    nodes = [bare(f"n{index}", part=index // 700) for index in range(count)]
    edges = [(index, index + 1, 5) for index in range(count - 1)]
    runs, links = in_runs(nodes, edges)
    members = [name for run in runs for name in (run.members or (run.name,))]
    assert members == [node.name for node in nodes]
    for run in runs:
        assert len({int(name[1:]) // 700 for name in run.members or (run.name,)}) == 1
    assert links == tuple((index, index + 1, 5) for index in range(len(runs) - 1))
