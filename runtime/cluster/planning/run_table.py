"""Compute what every run of steps costs a group of boards, for all runs at once or for one.

`CostArray` are arrays with an entry [start, stop] for each run, infinite where the run does not fit. They agree with
`hyps.runtime.cluster.planning.evaluation` for a *star*: a fleet without links between boards and without shared links.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.planning.board_groups import BoardGroup
from hyps.runtime.cluster.planning.crossing import RunBytes, TensorUse, run_bytes, tensor_uses
from hyps.runtime.cluster.planning.holding import hold, step_fits
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.planning.problem import Board, Workload
from hyps.runtime.cluster.planning.transfers import LEAST_S

#: The most steps for which it is computed exactly which weights stay, instead of by their sum.
MOST_EXACT_STEPS = 150

#: The part of a period that is taken for rounding.
ROUNDING = 1e-9

CostArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ComputingSeconds:
    """The seconds that a class of boards computes the first steps, by their number, as an array and as a list.

    ``gaps`` are the steps that it has no time for, which count 0, and the number of steps last: no run goes past one.
    """

    ends: CostArray
    listed: list[float]
    gaps: list[int]

    def stop(self, start: int, most_s: float) -> int:
        """Return the end of the longest run from a step on that computes no longer than ``most_s``."""
        longest = bisect_right(self.listed, self.listed[start] + most_s) - 1
        return min(longest, self.gaps[bisect_left(self.gaps, start)])


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
        self._ends: dict[str, _ComputingSeconds] = {}

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
        receiving = self.crossing.inputs / group.down.bytes_per_s
        sending = self.crossing.outputs / group.up.bytes_per_s
        unpacking, packing = (group.sample.message_s * each for each in (self.handled.inputs, self.handled.outputs))
        service = self.work_s(group.sample) + unpacking + packing
        return RunCosts(
            period_s=np.maximum(np.maximum(service, LEAST_S), np.maximum(receiving, sending)),
            latency_s=self.latency_s(group),
            dynamic_j=(group.sample.busy_watts - group.sample.idle_watts) * np.where(np.isfinite(service), service, 0.0),
        )

    def latency_s(self, group: BoardGroup) -> CostArray:
        """Return the seconds of one input alone, for all runs on a group's boards."""
        received, sent = self.crossing.inputs, self.crossing.outputs
        receiving, sending = received / group.down.bytes_per_s, sent / group.up.bytes_per_s
        if message_s := group.sample.message_s:
            receiving = np.maximum(receiving, message_s * self.handled.inputs)
            sending = np.maximum(sending, message_s * self.handled.outputs)
        latency: CostArray = receiving + sending + self.work_s(group.sample)
        latency += group.down.latency_s * (received > 0) + group.up.latency_s * (sent > 0)
        return latency

    def period_row(self, group: BoardGroup, start: int, most_s: float) -> CostArray:
        """Return the periods of runs of 1, 2, ... steps from ``start`` on, that compute no longer than ``most_s``."""
        board = group.sample
        computing = self._seconds(board.board_class)
        ends = computing.ends
        row = start, slice(start + 1, max(computing.stop(start, most_s), start) + 1)
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

    def period_s(self, group: BoardGroup, start: int, stop: int) -> float:
        """Return an entry of `period_row`, in a hundredth of its time; infinite past a step without a time."""
        board, computing = group.sample, self._seconds(group.sample.board_class)
        alone = self.alone.item(start, stop)
        if alone > board.memory_bytes or computing.stop(start, np.inf) < stop:
            return np.inf
        service = computing.listed[stop] - computing.listed[start]
        weights = self.weights.item(start, stop)
        if weights > board.memory_bytes - self.working.item(start, stop) - self.workload.sessions_bytes:
            service += max(0, weights - max(0, board.memory_bytes - alone)) / board.storage_bytes_per_s
        service += board.message_s * (self.handled.inputs.item(start, stop) + self.handled.outputs.item(start, stop))
        receiving_s = self.crossing.inputs.item(start, stop) / group.down.bytes_per_s
        sending_s = self.crossing.outputs.item(start, stop) / group.up.bytes_per_s
        return max(service, receiving_s, sending_s, LEAST_S)

    def longest_within(self, group: BoardGroup, start: int, most_s: float) -> int | None:
        """Return the end of the longest run from ``start`` on with a period of at most ``most_s``, None if there is none."""
        last = self._seconds(group.sample.board_class).stop(start, most_s)
        for stop in range(last, start, -1):
            if self.period_s(group, start, stop) / most_s <= 1 + ROUNDING:
                return stop
        return None

    def _seconds(self, name: str) -> _ComputingSeconds:
        if name not in self._ends:
            values = [step.seconds.get(name) for step in self.workload.steps]
            gaps = [number for number, each in enumerate(values) if each is None]
            ends = np.concatenate([[0.0], np.cumsum([each or 0.0 for each in values])])
            self._ends[name] = _ComputingSeconds(ends=ends, listed=ends.tolist(), gaps=[*gaps, self.count])
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
