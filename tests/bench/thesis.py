"""Read the thesis's systems from ``thesis_systems.toml``: workloads in parts, fleets of Raspberry Pis, its own placements.

A layer that can be split is as many steps as it has parts. They need nothing of each other, so that one device can hold
all of them, or several can hold them side by side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from hyps.runtime.cluster.planning.problem import (
    HUB,
    Board,
    Fleet,
    NetworkLink,
    PipelineStage,
    PlacedStep,
    Sharing,
    Stages,
    Workload,
)

SYSTEMS = Path(__file__).parent / "thesis_systems.toml"
_VALUE_BYTES = 4


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer, with the pooling after it; the file says what the shapes mean."""

    name: str
    values: int
    conv: tuple[int, int, int, int, int] | None = None
    conv3d: tuple[int, int, int, int, int, int] | None = None
    separable: tuple[int, int, int, int, int] | None = None
    fc: tuple[int, int] | None = None
    seconds: float = 0.0
    reads: tuple[str, ...] = ()
    parts: int = 1
    split: Literal["filters", "space"] = "filters"

    @property
    def work(self) -> tuple[str, int, int]:
        """The name of the rate, multiply-adds, and weights."""
        if self.conv:
            *place, channels, filters, kernel = self.conv
            weights = channels * filters * kernel**2
            return "conv", math.prod(place) * weights, weights
        if self.conv3d:
            *place, channels, filters, kernel = self.conv3d
            weights = channels * filters * kernel**3
            return "conv3d", math.prod(place) * weights, weights
        if self.separable:
            *place, channels, filters, kernel = self.separable
            weights = channels * kernel**2 + channels * filters
            return "conv", math.prod(place) * weights, weights
        weights = math.prod(self.fc) if self.fc else 0
        return "fc", weights, weights


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A factor that the thesis states, and the two cases that it compares: a planner and a number of devices each."""

    what: str
    factor: float
    of: tuple[str, int]
    to: tuple[str, int]
    source: str
    figure: Literal["throughput_per_s", "latency_s", "joules"] = "throughput_per_s"


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model, and the thesis's groups of its layers by number of devices: first, last, devices, sharing."""

    title: str
    source: str
    note: str
    inputs: dict[str, int]
    layers: tuple[Layer, ...]
    placements: dict[str, tuple[tuple[str, str, int, Sharing], ...]]
    stated: tuple[Statement, ...] = ()


class _Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    idle_watts: float
    busy_watts: float
    memory_bytes: int
    storage_bytes_per_s: float


class _Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes_per_s: float
    latency_s: float
    packet_bytes: int


class Thesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    board: _Board
    network: _Network
    rates: dict[str, float]
    systems: dict[str, System]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """A layer's steps, and the names of the tensors that hold its output."""

    numbers: range
    pieces: tuple[str, ...]


def read_thesis(path: Path = SYSTEMS) -> Thesis:
    """Read the file."""
    return msgspec.toml.decode(path.read_bytes(), type=Thesis)


def thesis_fleet(thesis: Thesis, count: int) -> Fleet:
    """Return equal devices d0, d1, ... at a switch; half of the latency is that of each link."""
    board, network = thesis.board, thesis.network
    boards = tuple(
        Board(
            name=f"d{number}",
            board_class="rpi3",
            memory_bytes=board.memory_bytes,
            storage_bytes_per_s=board.storage_bytes_per_s,
            idle_watts=board.idle_watts,
            busy_watts=board.busy_watts,
        )
        for number in range(count)
    )
    link = NetworkLink(bytes_per_s=network.bytes_per_s, latency_s=network.latency_s / 2)
    return Fleet(boards=boards, links={pair: link for each in boards for pair in ((each.name, HUB), (HUB, each.name))})


def system_workload(thesis: Thesis, system: System) -> Workload:
    """Return a model's steps: each part of a layer is one."""
    workload, _ = _built(thesis, system)
    return workload


def own_placement(thesis: Thesis, system: System, count: int) -> Stages | None:
    """Return the thesis's placement on so many devices, or None if it does not describe one."""
    groups = system.placements.get(str(count), ())
    _, steps = _built(thesis, system)
    stages, free = [], 0
    for first, last, devices, sharing in groups:
        held = range(steps[first].numbers.start, steps[last].numbers.stop)
        ends = [held.start + len(held) * number // devices for number in range(devices + 1)]
        shares = tuple(tuple(range(a, b)) for a, b in itertools.pairwise(ends)) if sharing == "shards" else ()
        names = tuple(f"d{number}" for number in range(free, free + devices))
        free += devices
        stages.append(PipelineStage(steps=held, boards=names, sharing=sharing, shares=shares, reason="the thesis's"))
    return tuple(stages) or None


def _built(thesis: Thesis, system: System) -> tuple[Workload, Mapping[str, _Steps]]:
    made: dict[str, _Steps] = {}
    sizes: dict[str, int] = {}
    steps: list[PlacedStep] = []
    before = ""
    for name, values in system.inputs.items():
        made[name] = _Steps(numbers=range(0), pieces=_pieces(name, values, _spatial_parts(system.layers, name), sizes))
    inputs = tuple(sizes)
    for layer in system.layers:
        rate, macs, weights = layer.work
        seconds = layer.seconds + macs / thesis.rates[rate]
        reads = [piece for name in layer.reads or (before,) for piece in made[name].pieces]
        start = len(steps)
        pieces: list[str] = []
        for part in range(layer.parts):
            suffix = f".{part}" if layer.parts > 1 else ""
            outputs = _pieces(
                layer.name + suffix,
                layer.values // layer.parts,
                _spatial_parts(system.layers, layer.name) if layer.parts == 1 else 1,
                sizes,
            )
            pieces += outputs
            by_space = layer.split == "space"
            steps.append(
                PlacedStep(
                    name=layer.name + suffix,
                    seconds={"rpi3": seconds / layer.parts},
                    weight_bytes=_VALUE_BYTES * weights // (1 if by_space else layer.parts),
                    working_bytes=_VALUE_BYTES * layer.values,
                    inputs=(reads[part],) if by_space else tuple(reads),
                    outputs=outputs,
                )
            )
        made[layer.name] = _Steps(numbers=range(start, len(steps)), pieces=tuple(pieces))
        before = layer.name
    return Workload(steps=tuple(steps), tensor_bytes=sizes, inputs=inputs, outputs=made[before].pieces), made


def _pieces(name: str, values: int, count: int, sizes: dict[str, int]) -> tuple[str, ...]:
    """Note the tensors that hold a layer's output; they are several for a reader that is split spatially."""
    names = tuple(f"{name}:{number}" for number in range(count)) if count > 1 else (name,)
    sizes.update(dict.fromkeys(names, _VALUE_BYTES * values // count))
    return names


def _spatial_parts(layers: Sequence[Layer], name: str) -> int:
    """Return the parts of the layer that reads this one spatially split, or 1."""
    return max((layer.parts for layer in layers if name in layer.reads and layer.split == "space"), default=1)
