"""Measure what an inference costs in energy: ``hyps-run DIR INPUT --energy``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyps.runtime.energy.choice import OpenedReader, open_energy_reader
from hyps.runtime.energy.estimate import PowerFigures, given_power, recorded_power
from hyps.runtime.energy.report import EnergyWindow, energy_record
from hyps.runtime.energy.sampler import EnergySampler
from hyps.runtime.execution.engine import Engine, EngineInput, InferenceResult, InputTensors, Observer
from hyps.runtime.terminal.console import note
from hyps.runtime.terminal.progress import Progress

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.cli.reporter import Reporter
    from hyps.runtime.cli.run_options import EnergyOptions

#: Seconds over which the idle power is measured before the run, or a window's where that is less.
_IDLE_S = 10.0
_DRAW_S = 0.2


@dataclass(slots=True, kw_only=True)
class _RepeatedInput:
    """An input that is read once and given again and again: what reading costs is in the first run alone."""

    source: EngineInput
    _tensors: InputTensors = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source.name

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        self._tensors = self._tensors or self.source.read(manifest, room_bytes)
        return self._tensors

    def stream(self) -> Iterator[EngineInput]:
        while True:
            yield self


class _Quiet(Observer):
    """An observer of the repeated runs: warnings are the reporter's, the rest would be told for every run."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def warning(self, message: str) -> None:
        self._reporter.warning(message)


def run_for_energy(options: EnergyOptions, engine: Engine, source: EngineInput, reporter: Reporter, *, quiet: bool) -> int:
    """Run one input again and again for the windows that the options ask for, and report it; return the exit code.

    Raises `EnergyError` where nothing measures energy and nothing estimates it, and what the engine raises.
    """
    opened = open_energy_reader(options.meter, _power(options, engine.manifest))
    with closing(EnergySampler(opened.reader)) as sampler:
        for reason in opened.unusable:
            note(reason)
        progress = _Countdown(quiet=quiet)
        # The stream is dropped, not ended: the engine would compare the peak, which measuring raised, with the budget.
        results = engine.run(_RepeatedInput(source=source).stream(), _Quiet(reporter))
        try:
            result = next(results)  # without a window: it reads what later runs find in memory
            if result.error is None:
                idle_watts, idle_source = _idle(opened, sampler, options.seconds, progress)
                windows: list[EnergyWindow] = []
                while len(windows) < options.windows and result.error is None:
                    progress.begin(f"window {len(windows) + 1} of {options.windows}", options.seconds)
                    window, result = _window(results, sampler, options.seconds, progress)
                    windows.append(window)
        finally:
            progress.clear()
        if result.error is not None:
            return reporter.report(result)
        record = energy_record(opened, idle_watts, idle_source, windows)
        return reporter.report(result, record)


def _power(options: EnergyOptions, manifest: Manifest) -> PowerFigures | None:
    if options.watts is not None:
        return given_power(options.watts, os.cpu_count() or 1)
    target = manifest.target
    return recorded_power(target.power, target.name) if target.power else None


def _idle(opened: OpenedReader, sampler: EnergySampler, seconds: float, progress: _Countdown) -> tuple[float, str]:
    """Return the idle watts, and their source: measured while the bundle is open and nothing runs, or the target's."""
    if opened.power:
        return opened.power.idle_watts, opened.power.source
    seconds = min(seconds, _IDLE_S)
    progress.begin("idle power", seconds)
    joules, began = sampler.joules(), time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(min(_DRAW_S, seconds - passed))
        progress.draw()
    joules, passed = sampler.joules() - joules, time.monotonic() - began
    return joules / passed, f"{opened.reader.name}, measured for {passed:.0f} s before the run"


def _window(
    results: Iterator[InferenceResult], sampler: EnergySampler, seconds: float, progress: _Countdown
) -> tuple[EnergyWindow, InferenceResult]:
    """Run until the window is over; return it and the last result, whose error ends it early."""
    joules, began, inferences = sampler.joules(), time.monotonic(), 0
    while True:
        result = next(results)
        inferences += 1
        passed = time.monotonic() - began
        if result.error is not None or passed >= seconds:
            break
        del result
        progress.draw()
    joules = sampler.joules() - joules
    return EnergyWindow(seconds=time.monotonic() - began, inferences=inferences, joules=joules), result


class _Countdown:
    """A line on a terminal that says what is measured, and how long it takes from now."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(1, quiet=quiet)
        self._what, self._until, self._next = "", 0.0, 0.0

    def begin(self, what: str, seconds: float) -> None:
        self._what, self._until, self._next = what, time.monotonic() + seconds, 0.0
        self.draw()

    def draw(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _DRAW_S
            self._progress.stage(f"measuring energy, {self._what}: {max(0.0, self._until - now):.0f} s left")

    def clear(self) -> None:
        self._progress.clear()
