"""The cuts that are wanted whatever the budget: Kaboubi's algorithms (sections 3.2.5 and 4.3.1)."""

from __future__ import annotations

from collections.abc import Collection

from hyps.passes.graph import Graph
from hyps.passes.onnx_ops import POOLINGS


def mandatory_cuts(groups: Collection[tuple[int, int]], count: int) -> tuple[int, ...]:
    """Kaboubi's Algorithm 1: a cut before and behind every complex layer, given as (first, last) operator indices."""
    positions = {position for first, last in groups for position in (first, last + 1)}
    return tuple(sorted(positions - {0, count}))


def pooling_cuts(graph: Graph, sealed: Collection[int]) -> tuple[int, ...]:
    """Kaboubi's Algorithm 2: a cut behind every pooling operator, and behind what onnxruntime fuses to it."""
    count = len(graph.operators)
    behind = (index + 1 for index, operator in enumerate(graph.operators) if operator.op_type in POOLINGS)
    free = {next(p for p in range(position, count + 1) if p not in sealed) for position in behind}
    return tuple(sorted(free - {count}))


def layer_cuts(count: int, sealed: Collection[int]) -> tuple[int, ...]:
    """A cut behind every layer: an operator with what onnxruntime fuses to it."""
    return tuple(position for position in range(1, count) if position not in sealed)
