"""Define the options of a simulation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedChange:
    """A board computes at ``factor`` times its normal speed from ``at_s`` on."""

    at_s: float
    board: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationLimits:
    """The options of `hyps.runtime.cluster.simulation.simulate.simulate`."""

    seconds: float | None
    inputs: int | None
    queue: int
    rate: float | None
    jitter: float
    chunk_bytes: int | None
