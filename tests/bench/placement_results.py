"""Define what ``make bench-placement`` keeps in ``docs/placement.json``: simulated systems, and checked predictions."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench.readings import Part

#: Planners in the order of the page's columns, with their names there.
PLANNERS = {
    "own": "the thesis's own",
    "algorithm1": "Algorithm 1",
    "algorithm2": "Algorithm 2",
    "ours": "ours",
    "pipeline": "simple pipeline",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCase:
    """One planner's placement of a system, simulated; ``skipped`` says why there is none.

    Latency is that of one input alone, energy that of one inference in a stream. ``queues`` are shares of the time with 0 to
    10 inputs in the queue, by device. ``formula_per_s`` is what `hyps.runtime.cluster.planning.evaluation` expects.
    """

    planner: str
    devices: int
    groups: str = ""
    throughput_per_s: float = 0.0
    formula_per_s: float = 0.0
    latency_s: float = 0.0
    static_joules: float = 0.0
    dynamic_joules: float = 0.0
    queues: dict[str, tuple[float, ...]] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def joules(self) -> float:
        """Static and dynamic."""
        return self.static_joules + self.dynamic_joules


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A factor that the thesis states, and what the simulator finds, None if one of the cases is missing."""

    what: str
    factor: float
    found: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSystem:
    """One of the thesis's systems."""

    key: str
    title: str
    source: str
    note: str
    cases: tuple[PlacementCase, ...]
    stated: tuple[Stated, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCase:
    """One placement on worker processes: predicted and measured inferences a second and seconds of one inference."""

    name: str
    shares: tuple[float, ...]
    groups: str
    predicted_per_s: float
    measured_per_s: float
    predicted_s: float
    measured_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRuns:
    """The network that was used, its cases, and what was measured for the predictions.

    A step takes ``slowdown`` times as long in a worker as alone; ``megabyte_s`` are the processor's seconds of a megabyte
    that a worker sends or receives; ``delay_s`` is that of a message.
    """

    network: str
    rate_bits_per_s: int
    slowdown: float
    megabyte_s: float
    delay_s: float
    cases: tuple[RealCase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementResults:
    """Everything; a part that was never made is None."""

    systems: Part[tuple[SimulatedSystem, ...]] | None = None
    real: Part[RealRuns] | None = None
    version: int = field(default=1)
