"""Place the cuts that are required whatever the budget: Kaboubi's algorithms (sections 3.2.5 and 4.3.1)."""

from __future__ import annotations

from collections.abc import Collection

from hyps.passes.graph import Graph
from hyps.passes.onnx_ops import POOLINGS


def mandatory_cuts(groups: Collection[tuple[int, int]], count: int) -> tuple[int, ...]:
    """Return the cuts of Kaboubi's Algorithm 1: before and after every complex layer.

    A layer is given as the indices of its first and last operator, of ``count``.
    """
    positions = {position for first, last in groups for position in (first, last + 1)}
    return tuple(sorted(positions - {0, count}))


def pooling_cuts(graph: Graph, sealed: Collection[int]) -> tuple[int, ...]:
    """Return the cuts of Kaboubi's Algorithm 2: after every pooling operator and what onnxruntime fuses to it."""
    count = len(graph.operators)
    after = (index + 1 for index, operator in enumerate(graph.operators) if operator.op_type in POOLINGS)
    unsealed = {next(p for p in range(position, count + 1) if p not in sealed) for position in after}
    return tuple(sorted(unsealed - {count}))


def layer_cuts(count: int, sealed: Collection[int]) -> tuple[int, ...]:
    """Return a cut after every layer: an operator with what onnxruntime fuses to it."""
    return tuple(position for position in range(1, count) if position not in sealed)
