"""Print the result of a compilation: the verdict, the steps, and the next commands to type."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyps.compiler.cli.console import counted, fact, unwrapped_fact
from hyps.compiler.cli.steps import groups_table, read_each_time, step_groups, steps_table
from hyps.compiler.pipeline import Compilation, Compiled
from hyps.compiler.targets import Target
from hyps.compiler.tolerance import promised_tolerance
from hyps.passes.device import DeviceRates
from hyps.passes.planning.plan import CandidateSummary
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.terminal.console import prose, styled
from hyps.runtime.units import megabytes


def compilation_summary(compiled: Compiled, job: Compilation, profile: Target | None, *, every_step: bool) -> Iterator[str]:
    """Yield the verdict, the steps and the next commands."""
    plan, manifest = compiled.plan, compiled.manifest
    yield from _verdict(compiled, job.request.budget_bytes)
    yield from fact("answers", _equality(compiled))
    yield from fact("time", _estimated_time(plan.latency_s, profile))
    yield from fact("read each time", _reading(manifest))
    yield from fact("smallest budget", megabytes(plan.smallest_budget_bytes))
    model, target = manifest.model, manifest.target
    yield from fact("model", f"{model.parameters:,} parameters, {megabytes(model.weight_bytes)} of weights")
    yield from fact("target", f"{target.name}, {counted(target.threads, 'thread')}")
    yield unwrapped_fact("bundle", str(job.output))
    yield ""
    yield from steps_table(manifest) if every_step else groups_table(step_groups(manifest.steps, compiled.sharded))
    in_table = {operator.name for operator in compiled.sharded if operator and not every_step}
    if others := [change for change in plan.changes if change.operator not in in_table]:
        yield ""
        for change in others:
            yield from prose(f"{change.operator} is {change.what}: {change.why}", sys.stdout)
    yield ""
    yield "next:"
    yield from (f"  {command}" for command in _next_commands(job, manifest))


def _verdict(compiled: Compiled, budget_bytes: int | None) -> list[str]:
    plan, name = compiled.plan, compiled.manifest.model.name
    peak, whole = megabytes(plan.peak_bytes), megabytes(plan.whole_peak_bytes)
    fits = f"fits in {megabytes(budget_bytes)}: its peak is {peak}" if budget_bytes else f"has a peak of {peak}"
    first, *rest = prose(f"{name} {fits}, the whole model's {whole} (both predicted)", sys.stdout)
    return [styled(first, "1", sys.stdout), *rest]


def _equality(compiled: Compiled) -> str:
    """Say how close the bundle's outputs are to the whole model's, and why they are not equal."""
    if compiled.plan.exact:
        return "bit for bit the whole model's, under the same session options"
    bound = promised_tolerance(compiled.manifest)
    return f"not bit for bit the whole model's, but within {bound:g} of its largest output: {compiled.plan.inexact_reason}"


def _estimated_time(latency_s: float, profile: Target | None) -> str:
    """Name the time of one inference with the machine that it is estimated for; see ``passes/calibration.toml``."""
    if profile is None:
        storage = megabytes(int(DeviceRates().storage_bytes_per_s))
        machine = f", estimated for one x86-64 core and storage of {storage}/s; name your device with --target"
    elif profile.is_measured:
        machine = f" on {profile.name}, estimated"
    else:
        machine = (
            f" on {profile.name}, estimated from its storage and the speed of one x86-64 core; 'hyps-run calibrate' on the "
            "device measures its own"
        )
    return f"about {latency_s:.2g} s{machine}"


def _reading(manifest: Manifest) -> str:
    streamed, pinned = read_each_time(manifest.steps), _pinned_bytes(manifest)
    if not streamed:
        return f"nothing: all {megabytes(pinned)} of weights stay in memory" if pinned else "nothing"
    if not pinned:
        return f"{megabytes(streamed)}, all of the weights"
    return f"{megabytes(streamed)} of the weights; {megabytes(pinned)} stay in memory"


def _next_commands(job: Compilation, manifest: Manifest) -> Iterator[str]:
    bundle, model = shlex.quote(str(job.output)), shlex.quote(str(job.model))
    library = f" --custom-ops {shlex.quote(str(job.custom_ops))}" if job.custom_ops else ""
    sample = "photo.jpg" if manifest.preprocess else "input.npy" if len(manifest.inputs) == 1 else "inputs.npz"
    yield f"hyps-run {bundle} {sample}{library}"
    yield f"hypsc report {bundle} -o report.html"
    yield f"hypsc validate {model} {bundle}{library}"


def explanations(compiled: Compiled) -> Iterator[str]:
    """Yield the reasons of the plan: each partition, each change, and the plans that were compared."""
    for part in compiled.plan.partitions:
        pinned = f"{megabytes(part.pinned_bytes)} of {megabytes(part.weight_bytes)} of weights stay in memory"
        session = "its session stays open" if part.kept else "its session is closed after it"
        yield f"{part.name}: {part.reason}; {pinned}, {session}"
    for change in compiled.plan.changes:
        yield f"{change.operator} is {change.what}: {change.why}"
    yield from map(_comparison, compiled.tried)


def _comparison(tried: CandidateSummary) -> str:
    """Say what one of the compared plans needs, and whether it was taken."""
    changes = counted(tried.changes, "split or tile", "splits or tiles")
    figures = (
        f"{counted(tried.partitions, 'partition')}, {changes}, a peak of {megabytes(tried.peak_bytes)}, a cost of "
        f"{tried.compared_s:.3g} s"
    )
    return f"refused: {figures}: {tried.refused}" if tried.refused else f"taken: {figures}"


def summary_data(compiled: Compiled, output: Path) -> dict[str, Any]:
    """Return the summary as data; sizes are in bytes."""
    plan, manifest = compiled.plan, compiled.manifest
    return {
        "model": manifest.model,
        "target": manifest.target,
        "budget_bytes": plan.budget_bytes,
        "whole_peak_bytes": plan.whole_peak_bytes,
        "pinned_bytes": _pinned_bytes(manifest),
        "streamed_bytes": read_each_time(manifest.steps),
        "latency_s": plan.latency_s,
        "peak_bytes": plan.peak_bytes,
        "smallest_budget_bytes": plan.smallest_budget_bytes,
        "exact": plan.exact,
        "inexact_reason": plan.inexact_reason,
        "partitions": plan.partitions,
        "changes": plan.changes,
        "tried": compiled.tried,
        "bundle": str(output),
    }


def _pinned_bytes(manifest: Manifest) -> int:
    """Return the bytes of weights that are read once and stay in memory."""
    return sum(step.pinned_bytes for step in manifest.steps)
