"""Report a run of ``hyps-run``: results, progress, and with ``--verbose`` what each step does and why."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

import msgspec

from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import InputError
from hyps.runtime.execution.engine import GroupTiming, InferenceResult, Observer
from hyps.runtime.execution.tensor import shape_of
from hyps.runtime.io.files import save, save_profile
from hyps.runtime.io.results import ResultRecord, WindowRecord, few_values, profile_lines, result_lines, top_classes
from hyps.runtime.terminal.console import json_text, note, prose, say, show
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.bundle.records.steps import Step
    from hyps.runtime.cli.run_options import RunOptions
    from hyps.runtime.energy.report import EnergyRecord
    from hyps.runtime.execution.step_profile import StepProfile
    from hyps.runtime.io.archive import ResultArchive


class Reporter(Observer):
    """An engine's observer that reports ``count`` inputs on the terminal; an ``archive`` gets the results instead."""

    def __init__(self, options: RunOptions, manifest: Manifest, count: int, archive: ResultArchive | None) -> None:
        self._run, self._options = options.engine, options.report
        self._manifest, self._archive = manifest, archive
        self._steps = {step.name: step for step in manifest.steps}
        self._profiles: deque[StepProfile] = deque(maxlen=len(manifest.steps))  # of the last run
        self._runs = 0
        unit = "inputs" if self._run.repeat == 1 else "runs"
        self._progress = Progress(count * self._run.repeat, unit, len(manifest.steps), quiet=self._options.quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.clear()

    def report(self, result: InferenceResult, energy: EnergyRecord | None = None, window: WindowRecord | None = None) -> int:
        """Print or keep a result and what belongs to it; return the exit code that it stands for. Raises `OutputError`."""
        if result.error:
            return self._fault(result.error)
        options = self._options
        if options.save:
            save(options.save, result.outputs)
        try:
            self._result(result, energy, window)
        except InputError as error:  # scores that are not numbers
            return self._fault(f"{result.name}: {error}")
        if options.profile:
            stream = sys.stderr if options.json else sys.stdout
            self._progress.clear()
            show(profile_lines(self._profiles, stream), stream)
        if options.profile_json:
            save_profile(options.profile_json, self._profiles)
        return 0

    def opened(self, manifest: Manifest, threads: int) -> None:
        """Report what was opened, and what the plan says of its weights."""
        weights = [step.weights.size_bytes for step in manifest.steps if step.weights]
        pinned = sum(step.pinned_bytes for step in manifest.steps)
        checked = "sizes and sha256, of weights as they are read" if self._run.verify else "sizes alone"
        self._note(
            f"{self._run.bundle}: {manifest.model.name} in {len(manifest.steps)} steps, compiled for "
            f"{manifest.target.name} with a budget of {megabytes(manifest.budget_bytes)}; checked: {checked}",
            f"{threads} threads; of {megabytes(sum(weights))} of weights {megabytes(pinned)} stay in memory once read, "
            f"{megabytes(sum(weights) - pinned)} are read each time{_compressed(manifest)}",
            f"{megabytes(memory().resident_bytes)} resident before the first input",
        )

    def step_done(self, profile: StepProfile | None) -> None:
        """Advance the progress by one step; report the step if it was measured."""
        self._progress.part_done()
        if profile is None:
            return
        if profile.name == self._manifest.steps[0].name:
            self._profiles.clear()  # of the run before, which may have had more steps
        self._profiles.append(profile)
        step = self._steps[profile.name]
        self._note(
            f"{step.name}: {len(step.operators)} operators, weights in {profile.wait_s * 1e3:,.1f} ms, "
            f"session in {profile.open_s * 1e3:,.1f} ms, ran "
            f"{profile.run_s * 1e3:,.1f} ms; {_weights(step)}; {megabytes(profile.read_bytes)} read from storage; "
            f"{megabytes(profile.resident_bytes)} resident, predicted peak {megabytes(step.peak_bytes)}; "
            f"keeps {', '.join(step.live) or 'nothing'}"
        )

    def run_done(self) -> None:
        """Set the progress to the runs that are complete."""
        self._runs += 1
        self._progress.set_done(self._runs)

    def group_done(self, timing: GroupTiming) -> None:
        """Print the time of inputs that ran together."""
        if self._options.json or self._options.quiet or self._archive:
            return
        spilled = f"; {megabytes(timing.spilled_bytes)} went through a temporary file" if timing.spilled_bytes else ""
        each = timing.seconds / timing.count
        self._show([f"batch of {timing.count}: {timing.seconds:.3f} s, {each:.3f} s each{spilled}"])

    def warning(self, message: str) -> None:
        """Print a warning."""
        self._fault(message)

    def _result(self, result: InferenceResult, energy: EnergyRecord | None, window: WindowRecord | None) -> None:
        options = self._options
        record = ResultRecord(
            input=result.name,
            top=top_classes(self._manifest, result.outputs, options.top),
            outputs={name: shape_of(values) for name, values in result.outputs.items()},
            latency_s=result.compute_s,
            peak_rss_bytes=memory().peak_bytes,
            budget_bytes=self._manifest.budget_bytes,
            values=few_values(result.outputs),
            energy=msgspec.to_builtins(energy) if energy else {},
            decoded=result.decoded,
            exit=result.exit,
            window=window,
            error_bound=result.error_bound if result.decoded else msgspec.UNSET,
        )
        if self._archive:
            self._archive.add(record)
        elif options.json:
            self._show([json_text(msgspec.json.encode(record))])
        elif not (options.quiet and options.save):
            self._show(result_lines(record, result.outputs, self._run.repeat, quiet=options.quiet))
            if energy:
                from hyps.runtime.energy.report import energy_lines

                for line in energy_lines(energy, quiet=options.quiet):
                    self._show(prose(f"  {line}", sys.stdout))

    def _fault(self, message: object) -> int:
        self._progress.clear()
        return say(message)

    def _note(self, *lines: str) -> None:
        if self._options.verbose:
            self._progress.clear()
            for line in lines:
                note(line)

    def _show(self, lines: Iterable[str]) -> None:
        self._progress.clear()
        show(lines)


def _compressed(manifest: Manifest) -> str:
    """Return how much storage reads for that, where it is less."""
    read_bytes = sum(step.read_bytes for step in manifest.steps)
    is_less = read_bytes < sum(step.streamed_bytes for step in manifest.steps)
    return f", as {megabytes(read_bytes)} compressed" if is_less else ""


def _weights(step: Step) -> str:
    """Return what happens to a step's weights."""
    if step.rows:
        return f"it reads rows of {step.rows.table.name}"
    if step.weights is None:
        return "it has no weights to read"
    released = step.weights.size_bytes - step.pinned_bytes
    ahead = f", {megabytes(step.ahead_bytes)} of the next step's are read meanwhile" if step.ahead_bytes else ""
    session = "its session stays open" if step.session.stays_open else "its session is closed"
    return f"{megabytes(step.pinned_bytes)} of weights stay, {megabytes(released)} are given back{ahead}; {session}"
