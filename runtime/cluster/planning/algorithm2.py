"""Assign tasks as Hadidi's Algorithm 2 does (thesis, section 4.4.3): by latencies that are measured while the system runs.

1. A layer that does not fit a device's memory is split (model parallelism), if there are devices enough.
2. Consecutive layers are grouped so that all devices have about the same latency. A layer that alone takes longer than that
   is split among as many devices as it needs, if it has parts.
3. The groups are deployed, latencies are measured, and the next round begins at step 1 with these.

The thesis's limits hold here, too: devices are taken as equal, and a latency is first taken from profiles of single layers,
without what memory, links and other layers of the device cost. What it leaves open is decided as follows. Groups are made
for the smallest latency for which the devices suffice, by one pass over the layers for each latency tried. What is measured
of a device scales the estimates of its layers. The rounds end when the groups stay the same, or after 25, which took the
thesis's systems five minutes; the best groups of all count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages, Workload
from hyps.runtime.cluster.planning.shares import widest_runs

ROUNDS = 25
#: How closely the common latency is found.
_HALVINGS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """What was measured of a deployed placement: inferences a second, and every board's seconds for one input."""

    throughput_per_s: float
    board_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Consecutive steps that need nothing of each other: a layer in parts, or one step."""

    steps: range
    estimates: tuple[float, ...]
    least_devices: int

    @property
    def seconds(self) -> float:
        return sum(self.estimates)

    def shares(self, devices: int) -> list[range]:
        """Return the steps of each device, dealt out evenly."""
        ends = [self.steps.start + len(self.steps) * number // devices for number in range(devices + 1)]
        return [range(first, end) for first, end in itertools.pairwise(ends)]

    def slowest_s(self, devices: int) -> float:
        """Return the seconds of the slowest of this many devices."""
        offset = self.steps.start
        return max(sum(self.estimates[at - offset] for at in share) for share in self.shares(devices))


def monitored_assignment(
    workload: Workload, fleet: Fleet, count: int, deploy: Callable[[Stages], Monitored], rounds: int = ROUNDS
) -> tuple[Stages, int]:
    """Return the placement of the best round on the first ``count`` boards, and the number of rounds.

    ``deploy`` runs a placement and measures it.
    """
    board_class = fleet.boards[0].board_class
    estimates = [step.seconds[board_class] for step in workload.steps]
    best, best_rate, before = equal_latency_groups(workload, fleet, count, estimates), 0.0, None
    for number in range(1, rounds + 1):
        stages = equal_latency_groups(workload, fleet, count, estimates)
        if stages == before:
            return best, number - 1
        measured = deploy(stages)
        if measured.throughput_per_s > best_rate:
            best, best_rate = stages, measured.throughput_per_s
        for stage in stages:
            shares = stage.shares if stage.sharing == "shards" else (tuple(stage.steps),)
            for board, share in zip(stage.boards, shares, strict=True):
                estimated = sum(estimates[index] for index in share)
                for index in share if estimated else ():
                    estimates[index] *= measured.board_s[board] / estimated
        before = stages
    return best, rounds


def equal_latency_groups(workload: Workload, fleet: Fleet, count: int, estimates: Sequence[float]) -> Stages:
    """Return groups of layers of about the same latency for ``count`` boards, by each step's estimate (steps 1 and 2)."""
    layers = _layers(workload, fleet.boards[0].memory_bytes, estimates)
    low, high = 0.0, sum(layer.seconds for layer in layers)
    groups = _grouped(layers, high, count)
    if groups is None:  # too few devices to split all that should be: weights are read again for every input
        layers = [replace(layer, least_devices=1) for layer in layers]
        groups = [(layers, 1)]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if found := _grouped(layers, middle, count):
            groups, high = found, middle
        else:
            low = middle
    names = iter(board.name for board in fleet.boards)
    return tuple(_stage(group, [next(names) for _ in range(devices)]) for group, devices in groups)


def _layers(workload: Workload, memory_bytes: int, estimates: Sequence[float]) -> list[_Layer]:
    runs = {run.start: range(run.start, run.stop) for run in widest_runs(workload)}
    found: list[_Layer] = []
    start = 0
    while start < len(workload.steps):
        steps = runs.get(start, range(start, start + 1))
        held = [workload.steps[index] for index in steps]
        needed = sum(step.weight_bytes for step in held) + max(step.working_bytes for step in held)
        devices = min(len(steps), max(1, math.ceil(needed / memory_bytes)))
        found.append(_Layer(steps=steps, estimates=tuple(estimates[index] for index in steps), least_devices=devices))
        start = steps.stop
    return found


def _grouped(layers: Sequence[_Layer], limit_s: float, count: int) -> list[tuple[list[_Layer], int]] | None:
    """Return groups that take no longer than a limit, each with its number of devices, or None if these are too many."""
    groups: list[tuple[list[_Layer], int]] = []
    room_s = 0.0
    for layer in layers:
        enough = (n for n in range(layer.least_devices, len(layer.steps) + 1) if layer.slowest_s(n) <= limit_s)
        devices = next(enough, 0)
        if not devices:
            return None
        if devices > 1:
            groups.append(([layer], devices))
            room_s = 0.0
        elif groups and layer.seconds <= room_s:
            groups[-1][0].append(layer)
            room_s -= layer.seconds
        else:
            groups.append(([layer], 1))
            room_s = limit_s - layer.seconds
    return groups if sum(devices for _, devices in groups) <= count else None


def _stage(group: Sequence[_Layer], boards: Sequence[str]) -> PipelineStage:
    steps = range(group[0].steps.start, group[-1].steps.stop)
    if len(boards) == 1:
        return PipelineStage(
            steps=steps, boards=tuple(boards), reason=f"{sum(layer.seconds for layer in group):.3g} s a board"
        )
    shares = tuple(tuple(share) for share in group[0].shares(len(boards)))
    reason = f"a layer of {group[0].seconds:.3g} s in {len(boards)} parts"
    return PipelineStage(steps=steps, boards=tuple(boards), sharing="shards", shares=shares, reason=reason)
