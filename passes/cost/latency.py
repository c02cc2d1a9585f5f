"""The estimated time of a partition, for comparing plans of one model on one device.

    step + max(reading its weights, computing) + copying what crosses its end

Weights are read from the system's file cache if it can hold all of them, else from storage. They are read while the
partition before computes, so the longer of the two counts. A step's session is opened for it, unless there is room to keep
it open: that is decided later (`hyps.passes.cost.residency`).

Joining two partitions never costs more: a step and a copy are saved, and the maximum of sums is at most the sum of maxima.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.compute import SecondsArray, compute_s
from hyps.passes.cost.costs import Bytes, Costs
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The seconds that partitions add up to: ``computed_s`` before every cut position (0..count), ``copy_s`` across it."""

    computed_s: SecondsArray
    copy_s: SecondsArray
    read_s_per_byte: float
    step_s: float

    def partitions_s(self, start: int, stops: Positions, weight_bytes: Bytes) -> SecondsArray:
        """Return the seconds of the partitions ``[start, stop)`` for each of ``stops``, which hold ``weight_bytes``."""
        computing = self.computed_s[stops] - self.computed_s[start]
        seconds: SecondsArray = self.step_s + np.maximum(weight_bytes * self.read_s_per_byte, computing) + self.copy_s[stops]
        return seconds


def latency(graph: Graph, costs: Costs, device: DeviceRates) -> Latency:
    """Return the latencies of a graph's partitions on a device."""
    is_cached = costs.process_bytes + int(costs.weights_from(0)[-1]) <= device.available_bytes
    return Latency(
        computed_s=np.concatenate(([0.0], np.cumsum(compute_s(graph, device)))),
        copy_s=costs.crossing / device.memory_bytes_per_s,
        read_s_per_byte=1 / (device.cached_weights_bytes_per_s if is_cached else device.weights_bytes_per_s),
        step_s=device.step_s + device.open_s,
    )
