"""Bound what any placement can reach, to say how far a heuristic's placement may be from the best.

The bound on the period is the dual of a linear program that deals every step out to all boards in any parts: for any weights
u of the steps, and the fastest computation of each, period >= sum(u) / sum over boards of max over steps of (u / seconds).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, Workload
from hyps.runtime.cluster.planning.transfers import LEAST_S


def lower_bound(workload: Workload, fleet: Fleet, objective: Objective, most_boards: int) -> float:
    """Return a number that no placement on this many boards is below: seconds of a period or an input, or joules."""
    if objective == "latency":
        return _latency_s(workload, fleet)
    period = _period_s(workload, fleet, most_boards)
    if objective == "throughput":
        return period
    watts = fleet.hub_watts + min(board.idle_watts for board in fleet.boards)
    dynamic = sum(
        min(
            (
                step.seconds[board.board_class] * (board.busy_watts - board.idle_watts)
                for board in _kinds(fleet)
                if board.board_class in step.seconds
            ),
            default=0.0,
        )
        for step in workload.steps
    )
    return watts * period + dynamic


def _kinds(fleet: Fleet) -> list[Board]:
    """Return one board of each class and power."""
    return list({(board.board_class, board.busy_watts - board.idle_watts): board for board in fleet.boards}.values())


def _period_s(workload: Workload, fleet: Fleet, most_boards: int) -> float:
    classes = sorted({board.board_class for board in fleet.boards})
    seconds = np.array([[max(step.seconds.get(name, np.inf), LEAST_S) for step in workload.steps] for name in classes])
    finite = np.where(np.isfinite(seconds), seconds, np.nan)
    best = 0.0
    for weights in (*finite, np.nanmin(finite, axis=0)):
        usable = np.where(np.isfinite(weights), weights, 0.0)
        rates = dict(zip(classes, (usable / seconds).max(axis=1), strict=True))
        total = sum(sorted((float(rates[board.board_class]) for board in fleet.boards), reverse=True)[:most_boards])
        best = max(best, float(usable.sum()) / total if total else 0.0)
    return best


def _latency_s(workload: Workload, fleet: Fleet) -> float:
    """Return the longest path through the steps at their fastest, between the fastest links."""
    classes = {board.board_class for board in fleet.boards}
    ready: dict[str, float] = dict.fromkeys(workload.inputs, 0.0)
    for step in workload.steps:
        ends = max((ready.get(name, 0.0) for name in step.inputs), default=0.0)
        ends += min((step.seconds[name] for name in classes if name in step.seconds), default=0.0)
        ready |= dict.fromkeys(step.outputs, ends)
    return max(ready.get(name, 0.0) for name in workload.outputs) + _ends_s(workload, fleet)


def _ends_s(workload: Workload, fleet: Fleet) -> float:
    """Return the least seconds for one input of the network, and one output."""
    read = {name for step in workload.steps for name in step.inputs}
    received = min((workload.tensor_bytes[name] for name in workload.inputs if name in read), default=0)
    sent = min((workload.tensor_bytes[name] for name in workload.outputs), default=0)
    return _least_s(fleet, received, to_hub=False) + _least_s(fleet, sent, to_hub=True)


def _least_s(fleet: Fleet, nbytes: int, *, to_hub: bool) -> float:
    pairs: Mapping[bool, list[tuple[str, str]]] = {
        True: [(board.name, HUB) for board in fleet.boards],
        False: [(HUB, board.name) for board in fleet.boards],
    }
    links = [fleet.links[pair] for pair in pairs[to_hub]]
    return min((each.latency_s + nbytes / each.bytes_per_s for each in links), default=0.0) if nbytes else 0.0
