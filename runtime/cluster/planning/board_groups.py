"""Group the boards that no planner needs to tell apart, and compute what every run of steps costs each group at once.

CostArray are arrays with an entry [start, stop] for each run, infinite where the run does not fit. They agree with
`hyps.runtime.cluster.planning.evaluation` for a *star*: a fleet without links between boards and without shared links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.planning.crossing import RunBytes, TensorUse, run_bytes, tensor_uses
from hyps.runtime.cluster.planning.holding import hold, step_fits
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, Workload
from hyps.runtime.cluster.planning.transfers import LEAST_S, link

#: The most steps for which it is computed exactly which weights stay, instead of by their sum.
MOST_EXACT_STEPS = 150

CostArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardGroup:
    """Boards with the same class, memory, storage, power, rights to share, and links to and from the hub."""

    boards: tuple[Board, ...]
    up: NetworkLink
    down: NetworkLink

    @property
    def sample(self) -> Board:
        """One of the boards."""
        return self.boards[0]


def is_star(fleet: Fleet) -> bool:
    """Return whether tensors pass the hub alone, over links that no two boards share."""
    return not fleet.shared_links and all(HUB in pair for pair in fleet.links)


def relaxed_star(fleet: Fleet) -> Fleet:
    """Return a star on which no placement takes longer than on the fleet: for lower bounds.

    It has no shared links. A board with links to others receives all by its best link, sends in no time, and handles
    messages in none: what it sends directly is packed while it arrives.
    """
    best = {pair: each for pair, each in fleet.links.items() if HUB in pair}
    for (sender, receiver), pair in fleet.links.items():
        if HUB in (sender, receiver):
            continue
        down = best[HUB, receiver]
        best[HUB, receiver] = NetworkLink(
            bytes_per_s=max(down.bytes_per_s, pair.bytes_per_s), latency_s=min(down.latency_s, pair.latency_s)
        )
        best[sender, HUB] = NetworkLink(bytes_per_s=np.inf, latency_s=0.0)
    paired = {name for pair in fleet.links if HUB not in pair for name in pair}
    boards = tuple(replace(board, message_s=0.0) if board.name in paired else board for board in fleet.boards)
    return Fleet(boards=boards, links=best, hub_watts=fleet.hub_watts)


def board_groups(fleet: Fleet) -> tuple[BoardGroup, ...]:
    """Return the groups of a fleet's boards, in the order of their first boards."""
    found: dict[object, list[Board]] = {}
    for board in fleet.boards:
        figures = replace(board, name="")
        up, down = link(fleet, board.name, HUB), link(fleet, HUB, board.name)
        found.setdefault((figures, up, down), []).append(board)
    return tuple(
        BoardGroup(boards=tuple(boards), up=link(fleet, boards[0].name, HUB), down=link(fleet, HUB, boards[0].name))
        for boards in found.values()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCosts:
    """The costs of all runs for one group: seconds between inputs, seconds of one input, and dynamic joules."""

    period_s: CostArray
    latency_s: CostArray
    dynamic_j: CostArray


class RunTable:
    """The sums over all runs of a workload's steps, from which the costs for any board follow."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.uses: Mapping[str, TensorUse] = tensor_uses(workload)
        self.count = len(workload.steps)
        self._work: dict[object, CostArray] = {}
        self._ends: dict[str, tuple[CostArray, NDArray[np.int64]]] = {}

    @cached_property
    def crossing(self) -> RunBytes:
        """The bytes that cross into and out of every run."""
        return run_bytes(self.workload, self.uses)

    @cached_property
    def handled(self) -> RunBytes:
        """What the tensors that cross into and out of every run cost a board, as numbers of messages."""
        return run_bytes(self.workload, self.uses, tensor_messages)

    @cached_property
    def weights(self) -> CostArray:
        """The weight bytes of every run."""
        return self._sums([step.weight_bytes for step in self.workload.steps])

    @cached_property
    def working(self) -> CostArray:
        """The most working bytes of a step of every run."""
        return self._maxima([step.working_bytes for step in self.workload.steps])

    @cached_property
    def alone(self) -> CostArray:
        """The most bytes that a step of every run needs with its weights."""
        return self._maxima([step.working_bytes + step.weight_bytes for step in self.workload.steps])

    def costs(self, group: BoardGroup) -> RunCosts:
        """Return the costs of all runs for a group's boards."""
        work = self.work_s(group.sample)
        received, sent = self.crossing.inputs, self.crossing.outputs
        receiving, sending = received / group.down.bytes_per_s, sent / group.up.bytes_per_s
        unpacking, packing = (group.sample.message_s * each for each in (self.handled.inputs, self.handled.outputs))
        service = work + unpacking + packing
        latency = np.maximum(receiving, unpacking) + np.maximum(sending, packing) + work
        latency += group.down.latency_s * (received > 0) + group.up.latency_s * (sent > 0)
        return RunCosts(
            period_s=np.maximum(np.maximum(service, LEAST_S), np.maximum(receiving, sending)),
            latency_s=latency,
            dynamic_j=(group.sample.busy_watts - group.sample.idle_watts) * np.where(np.isfinite(service), service, 0.0),
        )

    def period_row(self, group: BoardGroup, start: int, most_s: float) -> CostArray:
        """Return the periods of runs of 1, 2, ... steps from ``start`` on, that compute no longer than ``most_s``."""
        board = group.sample
        ends, gaps = self._seconds(board.board_class)
        stop = int(np.searchsorted(ends, ends[start] + most_s, side="right"))
        stop = min(stop, int(gaps[np.searchsorted(gaps, start)]) + 1)
        row = start, slice(start + 1, max(stop, start + 1))
        weights, alone = self.weights[row], self.alone[row]
        room = board.memory_bytes - self.working[row] - self.workload.sessions_bytes
        streamed = np.where(weights <= room, 0.0, np.maximum(0, weights - np.maximum(0, board.memory_bytes - alone)))
        handled = self.handled.inputs[row] + self.handled.outputs[row]
        service = ends[row[1]] - ends[start] + streamed / board.storage_bytes_per_s + board.message_s * handled
        moving = np.maximum(
            self.crossing.inputs[row] / group.down.bytes_per_s, self.crossing.outputs[row] / group.up.bytes_per_s
        )
        period: CostArray = np.where(alone <= board.memory_bytes, np.maximum(np.maximum(service, moving), LEAST_S), np.inf)
        return period

    def _seconds(self, name: str) -> tuple[CostArray, NDArray[np.int64]]:
        """Return the seconds that a class computes the first steps, by their number, and the steps without, the end last.

        A step that the class has no time for counts 0: no run goes past it.
        """
        if name not in self._ends:
            values = [step.seconds.get(name) for step in self.workload.steps]
            gaps = [number for number, each in enumerate(values) if each is None]
            ends = np.concatenate([[0.0], np.cumsum([each or 0.0 for each in values])])
            self._ends[name] = ends, np.array([*gaps, self.count])
        return self._ends[name]

    def work_s(self, board: Board) -> CostArray:
        """Return the seconds that a board computes and reads for an input, for every run; infinite where it does not fit."""
        key = (board.board_class, board.memory_bytes, board.storage_bytes_per_s)
        if key not in self._work:
            self._work[key] = self._work_s(board)
        return self._work[key]

    def _work_s(self, board: Board) -> CostArray:
        steps = self.workload.steps
        seconds = self._sums([step.seconds.get(board.board_class, np.inf) for step in steps])
        room = board.memory_bytes - self.working - self.workload.sessions_bytes
        streamed = np.where(self.weights <= room, 0.0, self._streamed(board))
        service = seconds + streamed / board.storage_bytes_per_s
        service[~(self.alone <= board.memory_bytes)] = np.inf
        service[np.isnan(service)] = np.inf
        return service

    def _streamed(self, board: Board) -> CostArray:
        """Return the weight bytes that do not stay, where not all do: exactly for few steps, else by their sum."""
        streamed: CostArray = np.maximum(0, self.weights - np.maximum(0, board.memory_bytes - self.alone))
        if self.count > MOST_EXACT_STEPS:
            return streamed
        is_runnable = [board.board_class in step.seconds and step_fits(step, board) for step in self.workload.steps]
        for start in range(self.count):
            for stop in range(start + 1, self.count + 1):
                if not is_runnable[stop - 1]:
                    break
                if self.weights[start, stop] > board.memory_bytes - self.working[start, stop] - self.workload.sessions_bytes:
                    streamed[start, stop] = hold(self.workload, self.uses, range(start, stop), board).streamed_bytes
        return streamed

    def _sums(self, values: Sequence[float]) -> CostArray:
        finite = np.where(np.isfinite(values), values, 0.0)
        ends = np.concatenate([[0.0], np.cumsum(finite)])
        missing = np.concatenate([[0], np.cumsum(~np.isfinite(values))])
        sums = ends[None, :] - ends[:-1, None]
        sums[(missing[None, :] - missing[:-1, None]) > 0] = np.inf
        return self._runs_only(sums)

    def _maxima(self, values: Sequence[float]) -> CostArray:
        grid = np.broadcast_to(np.concatenate([[0.0], np.asarray(values, float)]), (self.count, self.count + 1)).copy()
        grid[np.arange(self.count + 1)[None, :] <= np.arange(self.count)[:, None]] = 0.0
        return self._runs_only(np.maximum.accumulate(grid, 1))

    def _runs_only(self, costs: CostArray) -> CostArray:
        costs[np.arange(self.count + 1)[None, :] <= np.arange(self.count)[:, None]] = np.inf
        return costs
