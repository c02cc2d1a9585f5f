"""Carry out ``hyps-run tune``: tune a bundle for this processor, and report what changed."""

from __future__ import annotations

import argparse
import shlex
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import OutputError
from hyps.runtime.terminal.console import json_text, note, show
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.tuning.partition import NOTHING_TO_GAIN
from hyps.runtime.tuning.tune import Tuned, tune
from hyps.runtime.units import megabytes


def tune_bundle(options: argparse.Namespace) -> int:
    """Tune the bundle that the options name, and print the result; return the exit code. Raises `RuntimeFault`."""
    bundle: Path = options.bundle
    output: Path = options.output or _beside(bundle)
    with closing(_Steps(quiet=options.quiet)) as progress:
        found = tune(
            bundle,
            output,
            memory_bytes=options.memory,
            custom_ops=options.custom_ops,
            force=options.force,
            step_done=progress.step_done,
        )
    if options.json:
        show([json_text(msgspec.json.encode(_facts(found, output))).removesuffix("\n")])
    elif not options.quiet:
        show(_summary(found, output))
    if options.verbose:
        for line in _reasons(found):
            note(line)
    return 0


class _Steps:
    """The progress of tuning; how many steps there are is known when the bundle is read."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(0, "steps", quiet=quiet)
        self._done = 0

    def step_done(self) -> None:
        """Count one more step."""
        self._done += 1
        self._progress.stage(f"tuning: {self._done} steps done")

    def close(self) -> None:
        """Remove the line."""
        self._progress.clear()


def _beside(bundle: Path) -> Path:
    """Return the default folder of a tuned bundle."""
    name = bundle.resolve().name
    if not name:
        raise OutputError(f"{bundle} has no name to add '-tuned' to", "name the tuned bundle's folder with -o")
    return (
        bundle.resolve().with_name(f"{name}-tuned") if bundle.name in ("", ".", "..") else bundle.with_name(f"{name}-tuned")
    )


def _summary(found: Tuned, output: Path) -> Iterator[str]:
    """Yield the lines for people."""
    record = found.manifest.tuned
    assert record
    steps, tuned = len(record.steps), len(record.steps) - len(found.untuned)
    yield f"tuned {tuned} of {steps} steps for this processor ({record.machine}, onnxruntime {record.onnxruntime})"
    peak = max(step.peak_bytes for step in record.steps)
    yield f"predicted peak {megabytes(peak)} of a budget of {megabytes(found.manifest.budget_bytes)}"
    yield f"tuning took {megabytes(memory().peak_bytes)} at most"
    yield from _reasons(found, NOTHING_TO_GAIN)
    yield ""
    yield "next:"
    yield f"  hyps-run {shlex.quote(str(output))} INPUT"


def _reasons(found: Tuned, besides: str = "") -> Iterator[str]:
    """Yield why steps stay as they were compiled, one line for each reason; ``besides`` is a reason to leave out."""
    steps = defaultdict(list)
    for name, reason in found.untuned.items():
        steps[reason].append(name)
    steps.pop(besides, None)
    for reason, names in steps.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{others}: {reason}"


def _facts(found: Tuned, output: Path) -> dict[str, object]:
    """Return the result for scripts."""
    record = found.manifest.tuned
    assert record
    return {
        "bundle": str(output),
        "machine": record.machine,
        "features": record.features,
        "onnxruntime": record.onnxruntime,
        "steps": len(record.steps),
        "tuned": len(record.steps) - len(found.untuned),
        "untuned": found.untuned,
        "peak_bytes": max(step.peak_bytes for step in record.steps),
        "budget_bytes": found.manifest.budget_bytes,
        "tuning_peak_bytes": memory().peak_bytes,
    }
