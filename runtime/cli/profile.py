"""Carry out ``hyps-run profile``: measure every step of a bundle on this board, write the file, and report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TextIO

import msgspec

from hyps.runtime.errors import OutputError, ProfileError
from hyps.runtime.profiling.measure_steps import measurement_count, planned_threads, profile_steps
from hyps.runtime.profiling.profile_file import ProfiledStep, StepProfileFile, ThreadTimes, write_step_profile
from hyps.runtime.profiling.step_seconds import ProfiledSeconds
from hyps.runtime.terminal.console import json_text, show
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

#: The steps of the summary; -v lists all on standard error.
_SLOWEST = 10


def profile_bundle(options: argparse.Namespace) -> int:
    """Profile the bundle that the options name, and print the result; return the exit code. Raises `RuntimeFault`."""
    bundle: Path = options.bundle
    output: Path = options.output
    _check_output(output)
    threads = options.threads or planned_threads(bundle)
    with closing(_MeasuredSteps(measurement_count(bundle, threads), quiet=options.quiet)) as progress:
        found = profile_steps(
            bundle,
            threads,
            options.repeats,
            board_class=options.board_class,
            custom_ops=options.custom_ops,
            step_done=progress.step_done,
        )
    write_step_profile(output, found)
    if options.json:
        show([json_text(msgspec.json.encode(found))])
    elif not options.quiet:
        show(_summary(found, output))
    if options.verbose:
        show(_rows(found.steps, sys.stderr), sys.stderr)
    return 0


class _MeasuredSteps:
    """The progress of profiling: a step counts once in every pass and with every number of threads."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._progress = Progress(total, "measurements", quiet=quiet)

    def step_done(self) -> None:
        """Count one more measurement."""
        self._progress.part_done()

    def close(self) -> None:
        """Remove the line."""
        self._progress.clear()


def _check_output(output: Path) -> None:
    """Raise `OutputError`, before anything is measured, where the file cannot be written."""
    if output.is_dir() or not output.name:
        raise OutputError(f"--output '{output}' is no file", "give one such as step_profile.json")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        why = "cannot be written to" if output.parent.is_dir() else "is no folder"
        raise OutputError(f"cannot write {output}: {output.parent} {why}", "give another place with --output")


def _summary(found: StepProfileFile, output: Path) -> Iterator[str]:
    """Yield the lines for people: the class of the board, the slowest steps, sums, and how well others are predicted."""
    yield f"class of this board: {found.board_class}"
    slowest = sorted(found.steps, key=lambda step: -_fastest(step).run_s.median)[:_SLOWEST]
    yield from _rows(slowest, sys.stdout)
    if len(slowest) < len(found.steps):
        yield f"({len(slowest)} slowest of {len(found.steps)} steps; -v shows all)"
    for place, times in enumerate(found.steps[0].times):
        each = [step.times[place] for step in found.steps]
        total = sum(step.run_s.median for step in each)
        stored = [step.stored_s.median for step in each if step.stored_s]
        cold = f", {sum(stored) * 1e3:,.1f} ms from storage" if len(stored) == len(each) else ""
        count = f"{times.threads} thread{'' if times.threads == 1 else 's'}"
        yield f"all steps with {count}: {total * 1e3:,.1f} ms with weights in memory{cold}"
    if any(times.stored_s is None for step in found.steps for times in step.times):
        yield "times from storage were not measured: nothing was read from it, as when the bundle lies in memory (tmpfs)"
    yield _prediction(found)
    yield f"written to {output}"


def _rows(steps: Sequence[ProfiledStep], stream: TextIO) -> Iterator[str]:
    """Yield a table of steps, in milliseconds, each with its fastest number of threads."""
    columns = (
        Column("step"),
        Column("kind"),
        Column("threads", numeric=True),
        Column("ms", numeric=True),
        Column("quartiles", numeric=True, spare=True),
        Column("open", numeric=True, spare=True),
        Column("from storage", numeric=True, spare=True),
        Column("peak", numeric=True, spare=True),
    )
    return table(columns, [[step.name, step.kind, *_cells(_fastest(step))] for step in steps], stream)


def _fastest(step: ProfiledStep) -> ThreadTimes:
    return min(step.times, key=lambda times: times.run_s.median)


def _cells(times: ThreadTimes) -> list[str]:
    run = times.run_s
    return [
        str(times.threads),
        f"{run.median * 1e3:,.3f}",
        f"{run.lower * 1e3:,.3f} to {run.upper * 1e3:,.3f}",
        f"{times.open_s.median * 1e3:,.2f}",
        f"{times.stored_s.median * 1e3:,.2f}" if times.stored_s else "-",
        megabytes(times.peak_bytes) if times.peak_bytes else "-",
    ]


def _prediction(found: StepProfileFile) -> str:
    """Return the line about steps that are not in this profile."""
    try:
        regression = ProfiledSeconds.of_files([found]).regression(found.board_class)
    except ProfileError as error:
        return f"other steps cannot be predicted: {error.fault.problem}"
    return (
        f"other steps are predicted with a median error of {regression.known_error:.0%}, "
        f"of kinds that are not here {regression.unknown_error:.0%}"
    )
