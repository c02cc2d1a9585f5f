"""Estimate energy from a device's idle and busy watts, and from the time that this process computes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hyps.runtime.bundle.records.target import PowerRecord
from hyps.runtime.energy.reader import EnergyError


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFigures:
    """The power of a device without work and with all ``cores`` busy, from ``source``.

    ``error_watts``: the most by which a measured power differed from the line between the two; None where that is not known.
    """

    idle_watts: float
    busy_watts: float
    cores: int
    error_watts: float | None
    source: str

    def watts(self, busy_cores: float) -> float:
        """Return the power with this many cores busy, on the line between idle and busy."""
        return self.idle_watts + (self.busy_watts - self.idle_watts) * busy_cores / self.cores


def recorded_power(record: PowerRecord, target: str) -> PowerFigures:
    """Return the figures that a bundle's manifest has of its target."""
    return PowerFigures(
        idle_watts=record.idle_milliwatts / 1e3,
        busy_watts=max(record.idle_milliwatts, record.busy_milliwatts) / 1e3,
        cores=record.cores,
        error_watts=record.error_milliwatts / 1e3 if record.error_milliwatts is not None else None,
        source=f"target {target}",
    )


def given_power(text: str, cores: int) -> PowerFigures:
    """Return the figures of ``--watts IDLE,BUSY``. Raises `EnergyError`."""
    try:
        idle, busy = (float(part) for part in text.split(","))
    except ValueError:
        idle = busy = float("nan")
    if not 0 <= idle <= busy <= 1e4:
        raise EnergyError(f"--watts {text[:40]!r} is not an idle and a busy power", "give both in watts, such as 1.4,3.7")
    return PowerFigures(idle_watts=idle, busy_watts=busy, cores=cores, error_watts=None, source="--watts")


class EstimateReader:
    """The joules of a device by its `PowerFigures`, for the time that passes and the time that this process computes.

    The computing time of other programs is not counted.
    """

    counts_joules = True

    def __init__(self, power: PowerFigures) -> None:
        self.power = power
        self.name = f"estimated from {power.source}"
        error = f"{power.error_watts:.2f} W" if power.error_watts is not None else "unknown"
        self.covers = (
            f"{power.idle_watts:.2f} W idle and {power.busy_watts:.2f} W with {power.cores} cores busy, times the time; "
            f"the fit's error: {error}"
        )
        self._began, self._computed = time.monotonic(), time.process_time()

    def read(self) -> float:
        """Return the joules since the reader was made."""
        seconds, computed = time.monotonic() - self._began, time.process_time() - self._computed
        return (
            self.power.idle_watts * seconds + (self.power.busy_watts - self.power.idle_watts) * computed / self.power.cores
        )

    def close(self) -> None:
        """Do nothing."""
