"""Print the result of a compilation: the verdict, the steps, and the next commands to type."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyps.compiler.cli.console import counted, fact, shell_word, unwrapped_fact
from hyps.compiler.cli.steps import groups_table, step_groups, steps_table
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import Compiled
from hyps.compiler.targets import Target
from hyps.compiler.tolerance import TUNED, promised_tolerance
from hyps.compiler.validation_model import EXTRACTED, extract_command
from hyps.compiler.verdict import PlanVerdict, code_facts, exit_facts, weight_reads
from hyps.passes.normalize.extraction import WHOLE_MODEL
from hyps.passes.planning.plan import CandidateSummary
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.terminal.console import prose, styled
from hyps.runtime.units import megabytes


def compilation_summary(compiled: Compiled, job: Compilation, profile: Target | None, *, every_step: bool) -> Iterator[str]:
    """Yield the verdict, the steps and the next commands."""
    manifest = compiled.manifest
    verdict = _verdict(compiled, job.request.budget_bytes, profile)
    first, *rest = prose(verdict.headline, sys.stdout)
    yield styled(first, "1", sys.stdout)
    yield from rest
    for name, value in verdict.facts():
        yield from fact(name, value)
    model, target = manifest.model, manifest.target
    yield from fact("model", f"{model.parameters:,} parameters, {megabytes(model.weight_bytes)} of weights")
    yield from fact("target", f"{target.name}, {counted(target.threads, 'thread')}, {target.planned_library}")
    for code in code_facts(manifest):
        yield from fact("code", code)
    for text in exit_facts(manifest):
        yield from fact("exit", text)
    if job.request.tolerate and (without := _without_code(compiled)):
        yield from fact("no code", without)
    if job.tune:
        yield from fact("tuned", _tuned(compiled))
    yield unwrapped_fact("bundle", str(job.output))
    yield ""
    yield from steps_table(manifest) if every_step else groups_table(step_groups(manifest.steps, compiled.sharded))
    in_table = {operator.name for operator in compiled.sharded if operator and not every_step}
    if others := [change for change in compiled.plan.changes if change.operator not in in_table]:
        yield ""
        for change in others:
            yield from prose(f"{change.operator} is {change.what}: {change.why}", sys.stdout)
    yield ""
    yield "next:"
    yield from (f"  {command}" for command in _next_commands(job, manifest))


def _verdict(compiled: Compiled, budget_bytes: int | None, profile: Target | None) -> PlanVerdict:
    plan, manifest = compiled.plan, compiled.manifest
    return PlanVerdict(
        model=manifest.model.name,
        budget_bytes=budget_bytes,
        peak_bytes=plan.peak_bytes,
        whole_peak_bytes=plan.whole_peak_bytes,
        smallest_budget_bytes=plan.smallest_budget_bytes,
        tolerance=promised_tolerance(manifest),
        inexact_reason=plan.inexact_reason or (TUNED if manifest.tuned else None),
        latency_s=plan.latency_s,
        storage_latency_s=plan.storage_latency_s,
        target=manifest.target.name,
        has_own_rates=profile is not None and profile.is_measured,
        reads=weight_reads(manifest.without_parity().steps),
        is_stock=manifest.is_stock,
    )


def _without_code(compiled: Compiled) -> str:
    """Say which operators --tolerate leaves to copies, although they are split; or that it found none to give a code."""
    if compiled.uncoded:
        some = ", ".join(compiled.uncoded[:3]) + (", ..." if len(compiled.uncoded) > 3 else "")
        return f"{some}: split in a way that no code fits; the cluster can copy their steps instead"
    return "" if compiled.manifest.codes else "no operator is split or large enough; the cluster can copy steps instead"


def _tuned(compiled: Compiled) -> str:
    """Say how many steps are tuned, and for what."""
    record, count = compiled.manifest.tuned, len(compiled.manifest.steps)
    if not record:
        return f"no step: {next(iter(compiled.untuned.values()))}"
    tuned = f"{count - len(compiled.untuned)} of {counted(count, 'step')}"
    return f"{tuned}, for {record.machine} and onnxruntime {record.onnxruntime}"


def _next_commands(job: Compilation, manifest: Manifest) -> Iterator[str]:
    bundle, model = shell_word(str(job.output)), shell_word(str(job.model))
    library = f" --custom-ops {shell_word(str(job.custom_ops))}" if job.custom_ops else ""
    picture = "clip.mp4" if manifest.preprocess and manifest.preprocess.frames else "photo.jpg"
    sample = picture if manifest.preprocess else "input.npy" if len(manifest.inputs) == 1 else "inputs.npz"
    yield f"hyps-run {bundle} {sample}{library}"
    yield f"hypsc report {bundle} -o report.html"
    if job.part != WHOLE_MODEL:
        yield extract_command(job.model, manifest)
        model = EXTRACTED
    yield f"hypsc validate {model} {bundle}{library}"


def explanations(compiled: Compiled) -> Iterator[str]:
    """Yield the reasons of the plan: each partition, each change, and the plans that were compared."""
    for part in compiled.plan.partitions:
        pinned = f"{megabytes(part.pinned_bytes)} of {megabytes(part.weight_bytes)} of weights stay in memory"
        session = "its session stays open" if part.kept else "its session is closed after it"
        yield f"{part.name}: {part.reason}; {pinned}, {session}"
    for change in compiled.plan.changes:
        yield f"{change.operator} is {change.what}: {change.why}"
    for name, reason in compiled.untuned.items():
        yield f"{name} is not tuned: {reason}"
    yield from map(_comparison, compiled.tried)


def _comparison(tried: CandidateSummary) -> str:
    """Say what one of the compared plans needs, and whether it was taken."""
    changes = counted(tried.changes, "split or tile", "splits or tiles")
    figures = (
        f"{counted(tried.partitions, 'partition')}, {changes}, a peak of {megabytes(tried.peak_bytes)}, about "
        f"{tried.latency_s:.3g} s"
    )
    return f"refused: {figures}: {tried.refused}" if tried.refused else f"taken: {figures}"


def summary_data(compiled: Compiled, output: Path) -> dict[str, Any]:
    """Return the summary as data; sizes are in bytes."""
    plan, manifest = compiled.plan, compiled.manifest
    reads = weight_reads(manifest.without_parity().steps)
    return {
        "model": manifest.model,
        "tuned": len(manifest.steps) - len(compiled.untuned) if manifest.tuned else 0,
        "untuned": compiled.untuned,
        "target": manifest.target,
        "budget_bytes": plan.budget_bytes,
        "whole_peak_bytes": plan.whole_peak_bytes,
        "pinned_bytes": reads.pinned_bytes,
        "streamed_bytes": reads.streamed_bytes,
        "read_bytes": reads.read_bytes,
        "stored_bytes": reads.stored_bytes,
        "latency_s": plan.latency_s,
        "storage_latency_s": plan.storage_latency_s,
        "peak_bytes": plan.peak_bytes,
        "smallest_budget_bytes": plan.smallest_budget_bytes,
        "exact": plan.exact,
        "inexact_reason": plan.inexact_reason,
        "partitions": plan.partitions,
        "changes": plan.changes,
        "codes": manifest.codes,
        "exits": manifest.exits,
        "uncoded": compiled.uncoded,
        "tried": compiled.tried,
        "bundle": str(output),
    }
