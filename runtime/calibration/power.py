"""Measure this device's power without work and with its cores busy, where a meter or a sensor shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from hyps.runtime.energy.choice import OpenedReader, open_measuring_reader
from hyps.runtime.energy.reader import EnergyError
from hyps.runtime.energy.sampler import EnergySampler

#: Seconds for the device to come to rest, and of each measurement.
_REST_S, _MEASURE_S = 2.0, 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerProbe:
    """The measured watts by number of busy cores, 0 for none, and the source's name and what it covers."""

    watts_by_cores: Mapping[int, float]
    source: str
    covers: str

    @property
    def idle_watts(self) -> float:
        """The power without work."""
        return self.watts_by_cores[0]

    @property
    def busy_watts(self) -> float:
        """The power with all cores busy, at least the idle one."""
        return max(self.idle_watts, self.watts_by_cores[max(self.watts_by_cores)])

    @property
    def error_watts(self) -> float | None:
        """The most by which a measured power differs from the line between idle and busy; None without one between them."""
        most = max(self.watts_by_cores)
        errors = [
            abs(watts - (self.idle_watts + (self.busy_watts - self.idle_watts) * cores / most))
            for cores, watts in self.watts_by_cores.items()
            if 0 < cores < most
        ]
        return max(errors, default=None)


def power(
    cores: int, meter: str | None, load: Callable[[int], object], *, rest_s: float = _REST_S, measure_s: float = _MEASURE_S
) -> PowerProbe | None:
    """Measure with no core, one, half and all ``cores`` busy: about half a minute. None where nothing shows the power.

    ``load(threads)`` computes with so many threads for a moment. Raises `EnergyError` where the user's ``meter`` fails.
    """
    try:
        opened = open_measuring_reader(meter)
        if isinstance(opened, OpenedReader):
            return _probe(opened, sorted({1, cores // 2 or 1, cores}), load, rest_s, measure_s)
    except EnergyError:
        if meter is not None:
            raise
    return None


def _probe(
    opened: OpenedReader, counts: Sequence[int], load: Callable[[int], object], rest_s: float, measure_s: float
) -> PowerProbe:
    with closing(EnergySampler(opened.reader)) as sampler:
        time.sleep(rest_s)
        watts = {0: _watts(sampler, lambda: time.sleep(measure_s / 10), measure_s)}
        for count in counts:
            watts[count] = _watts(sampler, partial(load, count), measure_s)
    return PowerProbe(watts_by_cores=watts, source=opened.reader.name, covers=opened.reader.covers)


def _watts(sampler: EnergySampler, work: Callable[[], object], seconds: float) -> float:
    """Return the average power while ``work`` is done again and again."""
    joules, began = sampler.joules(), time.monotonic()
    while time.monotonic() < began + seconds:
        work()
    return (sampler.joules() - joules) / (time.monotonic() - began)
