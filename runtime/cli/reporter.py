"""What a run of ``hyps-run`` tells: results, how far it is, and, with ``--verbose``, what it does and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

import msgspec

from hyps.runtime.device.process_memory import memory
from hyps.runtime.io.results import Result, profile_lines, result_lines, top_classes
from hyps.runtime.terminal.console import note, say, show
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest, Step
    from hyps.runtime.execution.engine import Engine
    from hyps.runtime.execution.executor import Executor, StepProfile
    from hyps.runtime.io.inputs import Tensors


class Reporter:
    """Tells of ``count`` inputs as the options want it; ``keep`` takes results that are not to be printed."""

    def __init__(
        self, options: argparse.Namespace, keep: Callable[[Result], None] | None, manifest: Manifest, count: int
    ) -> None:
        self._options, self._keep = options, keep
        self._steps = {step.name: step for step in manifest.steps}
        self._rounds = 0
        what = "inputs" if options.repeat == 1 else "runs"
        self._progress = Progress(count * options.repeat, what, len(manifest.steps), quiet=options.quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.clear()

    def opened(self, executor: Executor) -> None:
        """What was opened, and what the plan says of its weights."""
        manifest = executor.manifest
        weights = [step.weights.size_bytes for step in manifest.steps if step.weights]
        pinned = sum(step.pinned_bytes for step in manifest.steps)
        checked = "sizes alone" if self._options.no_verify else "sizes and sha256, of weights as they are read"
        self._note(
            f"{self._options.bundle}: {manifest.model.name} in {len(manifest.steps)} steps, compiled for "
            f"{manifest.target.name} with a budget of {megabytes(manifest.budget_bytes)}; checked: {checked}",
            f"{executor.threads} threads; of {megabytes(sum(weights))} of weights {megabytes(pinned)} stay in memory once "
            f"read, {megabytes(sum(weights) - pinned)} are read each time",
            f"{megabytes(memory().resident_bytes)} resident before the first input",
        )

    def step(self, profile: StepProfile) -> None:
        """A step was run."""
        step = self._steps[profile.name]
        self._note(
            f"{step.name}: {len(step.operators)} operators, ready in {profile.load_s * 1e3:,.1f} ms, ran "
            f"{profile.run_s * 1e3:,.1f} ms; {_weights(step)}; {megabytes(profile.read_bytes)} came from storage; "
            f"{megabytes(profile.resident_bytes)} resident, {megabytes(step.peak_bytes)} predicted at most; "
            f"keeps {', '.join(step.live) or 'nothing'}"
        )

    def step_done(self) -> None:
        """One step of one input is done."""
        self._progress.part()

    def round_done(self) -> None:
        """An input went through all steps."""
        self._rounds += 1
        self._progress.thing(self._rounds)

    def result(self, engine: Engine, name: str, outputs: Tensors, latency_s: float) -> None:
        """Keep or print the result of an input."""
        options = self._options
        result = Result(
            input=name,
            top=top_classes(engine.manifest, outputs, options.top),
            outputs={name: tuple(values.shape) for name, values in outputs.items()},
            latency_s=latency_s,
            peak_rss_bytes=memory().peak_bytes,
            budget_bytes=engine.manifest.budget_bytes,
        )
        if self._keep:
            self._keep(result)
        elif options.json:
            self._show([msgspec.json.encode(result).decode()])
        elif not (options.quiet and options.save):
            self._show(result_lines(result, outputs, options.repeat, quiet=options.quiet))

    def profile(self, profiles: Iterable[StepProfile]) -> None:
        """Print what each step took."""
        stream = sys.stderr if self._options.json else sys.stdout
        self._progress.clear()
        show(profile_lines(profiles, stream), stream)

    def together(self, count: int, seconds: float, spilled_bytes: int) -> None:
        """What inputs that ran together took."""
        spilled = f"; {megabytes(spilled_bytes)} went through a temporary file" if spilled_bytes else ""
        if count and not (self._options.json or self._options.quiet or self._keep):
            self._show([f"batch of {count}: {seconds:.3f} s, {seconds / count:.3f} s each{spilled}"])

    def fault(self, message: object) -> int:
        """Tell what is wrong with an input; the exit code that goes with it."""
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


def _weights(step: Step) -> str:
    """What becomes of a step's weights."""
    if step.weights is None:
        return "no weights of its own to read"
    left = step.weights.size_bytes - step.pinned_bytes
    ahead = f", {megabytes(step.ahead_bytes)} of the next are read meanwhile" if step.ahead_bytes else ""
    session = "its session stays open" if step.session.stays_open else "its session is closed"
    return f"{megabytes(step.pinned_bytes)} of weights stay, {megabytes(left)} are given back{ahead}; {session}"
