"""Run `mtkahypar` in a process of its own: on a few small hypergraphs, version 1.7 crashes or does not return.

Input and output are JSON, one problem or answer a line, in their order.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: Seconds for all problems that are given together.
_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProblem:
    """A hypergraph, the boards as a complete graph with costs for each pair, and each board's largest weight."""

    weights: Sequence[int]
    edges: Sequence[Sequence[int]]
    edge_weights: Sequence[int]
    pairs: Sequence[tuple[int, int]]
    costs: Sequence[int]
    limits: Sequence[int]
    spread: float


def is_installed() -> bool:
    """Return whether the partitioner is there."""
    return importlib.util.find_spec("mtkahypar") is not None


def graph_partitions(problems: Sequence[PartitionProblem]) -> list[list[int] | None]:
    """Return the board of each node for every problem; None for one that crashes it, and for all after a timeout."""
    answers: list[list[int] | None] = []
    while len(answers) < len(problems):
        lines = "".join(json.dumps(asdict(problem)) + "\n" for problem in problems[len(answers) :])
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__],
                input=lines,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            break
        answers += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        if len(answers) < len(problems):
            answers.append(None)
    return answers + [None] * (len(problems) - len(answers))


def _partition(library: Any, partitioner: Any, problem: dict[str, Any]) -> list[int]:
    library.set_seed(0)
    context = partitioner.context_from_preset(library.PresetType.DETERMINISTIC)
    context.logging = False
    edges, count = problem["edges"], len(problem["limits"])
    hypergraph = partitioner.create_hypergraph(
        context, len(problem["weights"]), len(edges), edges, problem["weights"], problem["edge_weights"]
    )
    if count == 2:  # a Steiner tree of two boards is a cut; mapping onto two nodes does not end
        context.set_partitioning_parameters(2, problem["spread"], library.Objective.KM1)
        context.set_individual_target_block_weights(problem["limits"])
        return list(hypergraph.partition(context).get_partition())
    pairs = [tuple(pair) for pair in problem["pairs"]]
    target = partitioner.create_target_graph(context, count, len(pairs), pairs, problem["costs"])
    context.set_mapping_parameters(count, problem["spread"])
    context.set_individual_target_block_weights(problem["limits"])
    return list(hypergraph.map_onto_graph(target, context).get_partition())


def _answer_all() -> None:
    library = importlib.import_module("mtkahypar")
    partitioner = library.initialize(1)
    for line in sys.stdin:
        found = _partition(library, partitioner, json.loads(line))
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _answer_all()
