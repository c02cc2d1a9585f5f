"""Bound what any placement can reach, to say how far a heuristic's placement may be from the best.

The bound on the period is the dual of a linear program that deals every step out to all boards in any parts: for any weights
u of the steps, and the fastest computation of each, period >= sum(u) / sum over boards of max over steps of (u / seconds).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.planning.holding import step_fits
from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, Workload
from hyps.runtime.cluster.planning.transfers import LEAST_S


def lower_bound(workload: Workload, fleet: Fleet, objective: Objective, most_boards: int) -> float:
    """Return a lower bound for placements on this many boards: seconds of a period or of an input, or joules."""
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


def _step_seconds(workload: Workload, fleet: Fleet) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Return the seconds of every step by class and memory of boards; infinite where a step does not fit."""
    kinds = {(board.board_class, board.memory_bytes): board for board in fleet.boards}
    return {
        kind: np.array(
            [
                max(step.seconds.get(board.board_class, np.inf), LEAST_S) if step_fits(step, board) else np.inf
                for step in workload.steps
            ]
        )
        for kind, board in kinds.items()
    }


def _period_s(workload: Workload, fleet: Fleet, most_boards: int) -> float:
    seconds = _step_seconds(workload, fleet)
    best = 0.0
    for weights in (*seconds.values(), np.min([*seconds.values()], axis=0)):
        usable = np.where(np.isfinite(weights), weights, 0.0)
        rates = {kind: float((usable / each).max()) for kind, each in seconds.items()}
        every = sorted((rates[board.board_class, board.memory_bytes] for board in fleet.boards), reverse=True)
        total = sum(every[:most_boards])
        best = max(best, float(usable.sum()) / total if total else 0.0)
    return best


def _latency_s(workload: Workload, fleet: Fleet) -> float:
    """Return the longest path through the steps at their fastest, between the fastest links."""
    least = np.min([*_step_seconds(workload, fleet).values()], axis=0)
    ready: dict[str, float] = dict.fromkeys(workload.inputs, 0.0)
    for step, seconds in zip(workload.steps, least, strict=True):
        ends = max((ready.get(name, 0.0) for name in step.inputs), default=0.0) + float(seconds)
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
