"""State what a cluster's workers and a bundle's steps are for the planner: the same problem as `hyps-manager plan` solves.

Workers whose steps take equally long are a class of boards. A worker that may not see the model's inputs has no time for the
steps that read them. What a worker's link carries, and what a message costs it, is what it measured; or else Fast Ethernet,
and what its claimed speed gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.planning.message_cost import rated_message_s
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, Workload
from hyps.runtime.cluster.planning.step_cost import LINK_BYTES_PER_S, step_cost
from hyps.runtime.cluster.planning.workload import bundle_workload

#: The time of a message through hub and manager, besides that for its bytes (measured: 0.2 to 0.3 ms for 100 KB on
#: loopback).
_HOP_S = 0.5e-3
#: The link of a worker that has not measured its own.
ASSUMED_LINK = NetworkLink(bytes_per_s=LINK_BYTES_PER_S, latency_s=2 * _HOP_S)

#: What a worker measures of a message is believed up to so many times what its claim gives, and rounded to powers.
_MOST_RATED, _TOLD_APART = 64.0, 1.25

#: Returns the seconds of every step on a worker, with all weights in memory.
SecondsOnWorker = Callable[[WorkerCapacity], Sequence[float]]


def claimed_seconds(manifest: Manifest) -> SecondsOnWorker:
    """Return the seconds of steps by what workers claim alone."""
    costs = [step_cost(manifest, step) for step in manifest.steps]
    return lambda worker: tuple(cost / worker.macs_per_s for cost in costs)


def placement_problem(
    manifest: Manifest, workers: Sequence[WorkerCapacity], seconds: SecondsOnWorker
) -> tuple[Workload, Fleet]:
    """Return the workload and the fleet; boards have the workers' names."""
    classes: dict[tuple[Sequence[float], bool], str] = {}
    boards: list[Board] = []
    links: dict[tuple[str, str], NetworkLink] = {}
    for worker in workers:
        board_class = classes.setdefault((tuple(seconds(worker)), worker.safe), str(len(classes)))
        boards.append(
            Board(
                name=worker.name,
                board_class=board_class,
                memory_bytes=worker.memory_bytes,
                storage_bytes_per_s=worker.storage_bytes_per_s,
                idle_watts=0.0,
                busy_watts=0.0,
                message_s=_message_s(worker),
            )
        )
        up = down = ASSUMED_LINK
        if worker.link:
            up, down = (
                NetworkLink(bytes_per_s=rate, latency_s=worker.link.latency_s + _HOP_S)
                for rate in (worker.link.up_bytes_per_s, worker.link.down_bytes_per_s)
            )
        links |= {(worker.name, HUB): up, (HUB, worker.name): down}
    unsafe = {name for (_, safe), name in classes.items() if not safe}
    workload = bundle_workload(manifest, {name: each for (each, _), name in classes.items()}, unsafe)
    return workload, Fleet(boards=tuple(boards), links=links)


def _message_s(worker: WorkerCapacity) -> float:
    """Return the seconds of a message: what the worker measured, as far as it is possible, or else by its claimed speed.

    Equal boards never measure quite the same, and a planner is to take them for equal.
    """
    rated = rated_message_s(worker.macs_per_s)
    measured = min(worker.message_s or rated, rated * _MOST_RATED)
    return float(_TOLD_APART ** round(math.log(measured, _TOLD_APART)))


def with_rights(fleet: Fleet, workers: Sequence[WorkerCapacity], *, shares_inputs: bool) -> Fleet:
    """Return the fleet for a planner: groups have one run each, and only with ``shares_inputs`` have others replicas."""
    groups = {worker.name for worker in workers if worker.group}
    boards = tuple(
        replace(board, shares_inputs=shares_inputs and board.name not in groups, one_run=board.name in groups)
        for board in fleet.boards
    )
    return replace(fleet, boards=boards)
