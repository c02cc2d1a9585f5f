"""Predict the memory and the time that the steps of a plan need where they are tuned for a processor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hyps.passes.calibration import calibrated
from hyps.passes.cost.blocked_layout import computes_in_blocks, layout_costs
from hyps.passes.cost.compute import compute_s
from hyps.passes.graph import Graph
from hyps.passes.planning.partitions import Segments
from hyps.passes.planning.plan import Plan
from hyps.passes.planning.request import Request

#: How many times as fast a tuned convolution is.
TUNED_SPEEDUP = calibrated("tuned_speedup")


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


def tuned_latency_s(graph: Graph, plan: Plan, request: Request) -> float:
    """Return the estimated seconds of a plan when every step is tuned that has room for it."""
    room = tuned_bytes(graph, plan, request.process_bytes)
    seconds = dict(zip((operator.name for operator in graph.operators), compute_s(graph, request.device), strict=True))
    tuned = [
        partition for partition in plan.partitions if room.get(partition.name, plan.budget_bytes + 1) <= plan.budget_bytes
    ]
    convolving = {operator.name for operator in graph.operators if computes_in_blocks(graph, operator)}
    spent = sum(float(seconds[name]) for partition in tuned for name in partition.operators if name in convolving)
    return plan.latency_s - spent * (1 - 1 / TUNED_SPEEDUP)
