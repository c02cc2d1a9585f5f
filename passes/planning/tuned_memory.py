"""Predict the memory that the steps of a plan need where they are tuned for a processor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hyps.passes.cost.blocked_layout import computes_in_blocks, layout_costs
from hyps.passes.graph import Graph
from hyps.passes.planning.partitions import Segments
from hyps.passes.planning.plan import Plan


def tuned_bytes(graph: Graph, plan: Plan, process_bytes: int) -> Mapping[str, int]:
    """Return the predicted process peak of each partition that may be tuned, alone and tuned, by its name."""
    operators = {operator.name: operator for operator in graph.operators}
    tunable = [
        partition.name
        for partition in plan.partitions
        if any(computes_in_blocks(graph, operators[name]) for name in partition.operators)
    ]
    if not tunable:
        return {}
    *cuts, _ = itertools.accumulate(len(partition.operators) for partition in plan.partitions)
    segments = Segments(graph, layout_costs(graph, plan.threads, process_bytes)).between(tuple(cuts))
    found = {partition.name: segment.alone_bytes for partition, segment in zip(plan.partitions, segments, strict=True)}
    return {name: found[name] for name in tunable}
