"""What the compiler tells: tables for people, the same as data for scripts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from hyps.compiler.pipeline import Compiled
from hyps.passes.planning.plan import CandidateSummary
from hyps.runtime.bundle.manifest import Manifest, Preprocess, Step
from hyps.runtime.terminal.console import plain, prose, show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.compiler.validate import Validation

#: The names of facts take so many columns.
_FACT = 17


def print_json(data: Any) -> None:
    """Data for scripts, on standard output."""
    show([msgspec.json.format(msgspec.json.encode(data), indent=2).decode()])


def fact(name: str, value: str) -> list[str]:
    """A line that tells one thing of a model or a plan."""
    return prose(f"{name:<{_FACT}}{value}", sys.stdout, _FACT)


def print_compiled(compiled: Compiled, output: str) -> None:
    """The summary of a compilation."""
    show(_compiled_lines(compiled, output))


def _compiled_lines(compiled: Compiled, output: str) -> Iterator[str]:
    plan, manifest = compiled.plan, compiled.manifest
    yield from _facts(manifest, whole=megabytes(plan.whole_peak_bytes))
    yield ""
    yield from _steps_table(manifest.steps, [part.leaving_bytes for part in plan.partitions])
    yield ""
    for change in plan.changes:
        yield from prose(f"{change.operator} is {change.what}: {change.why}", sys.stdout)
    yield from _cuts(manifest.steps)
    exact = "bit for bit the whole model's, same session options" if plan.exact else f"inexact: {plan.inexact_reason}"
    yield from fact("result", exact)
    yield from fact("highest peak", f"{megabytes(plan.peak_bytes)} of {megabytes(plan.budget_bytes)}")
    yield from fact("stay in memory", f"{megabytes(_pinned_bytes(manifest))} of the weights")
    yield from fact("read every time", f"{megabytes(_streamed_bytes(manifest))} of the weights")
    yield from fact("estimated time", f"{plan.latency_s:.2g} s an inference, what is read coming from storage")
    yield from fact("enough would be", megabytes(plan.smallest_budget_bytes))
    yield f"{'written to':<{_FACT}}{plain(output)}"  # to be copied: never in two lines


def reasons(compiled: Compiled) -> Iterator[str]:
    """Why the plan is as it is: each partition's beginning, each change, and what was tried besides."""
    for part in compiled.plan.partitions:
        stays = f"{megabytes(part.pinned_bytes)} of {megabytes(part.weight_bytes)} of weights stay in memory"
        session = "and so does its session" if part.kept else "its session does not"
        yield f"{part.name} begins where it does: {part.reason}; {stays}, {session}"
    for change in compiled.plan.changes:
        yield f"{change.operator} is {change.what}: {change.why}"
    for tried in compiled.tried:
        yield _tried(tried)


def _tried(tried: CandidateSummary) -> str:
    made = f"{_count(tried.partitions, 'partition')}, {_count(tried.changes, 'split or tile')}"
    told = f"{made}, a peak of {megabytes(tried.peak_bytes)}, {tried.compared_s:.3g} s in comparison"
    return f"refused: {told}: {tried.refused}" if tried.refused else f"taken: {told}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def compiled_data(compiled: Compiled, output: str) -> dict[str, Any]:
    """The summary of a compilation as data; sizes in bytes."""
    plan, manifest = compiled.plan, compiled.manifest
    return {
        "model": manifest.model,
        "target": manifest.target,
        "budget_bytes": plan.budget_bytes,
        "whole_peak_bytes": plan.whole_peak_bytes,
        "pinned_bytes": _pinned_bytes(manifest),
        "streamed_bytes": _streamed_bytes(manifest),
        "latency_s": plan.latency_s,
        "peak_bytes": plan.peak_bytes,
        "smallest_budget_bytes": plan.smallest_budget_bytes,
        "exact": plan.exact,
        "inexact_reason": plan.inexact_reason,
        "partitions": plan.partitions,
        "changes": plan.changes,
        "tried": compiled.tried,
        "bundle": output,
    }


def print_manifest(manifest: Manifest) -> None:
    """What ``hypsc inspect`` shows."""
    show(_manifest_lines(manifest))


def _manifest_lines(manifest: Manifest) -> Iterator[str]:
    yield from _facts(manifest)
    for kind, names in (("input", manifest.inputs), ("output", tuple(output.name for output in manifest.outputs))):
        for name in names:
            record = manifest.tensors[name]
            yield from fact(kind, f"{name} {record.dtype}{list(record.shape)}")
    yield from fact("preprocessing", _recipe(manifest.preprocess) if manifest.preprocess else "none: takes .npy and .npz")
    yield from fact("labels", str(len(manifest.labels)) if manifest.labels else "none")
    yield ""
    sizes = {name: record.nbytes for name, record in manifest.tensors.items()}
    yield from _steps_table(manifest.steps, [sum(sizes[name] for name in step.live) for step in manifest.steps])
    yield ""
    yield from _cuts(manifest.steps)


def _recipe(how: Preprocess) -> str:
    """``Preprocess`` in words."""
    height, width = how.size
    fitted = f"short side to {how.resize}, cut to {width} x {height}" if how.resize else f"stretched to {width} x {height}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    scaled = f"(value x {how.scale:.6g} - {mean}) / {std}"
    return f"{fitted}, {how.interpolation}; {how.colour}, {scaled}; {how.dtype} {how.layout}"


def print_validation(validation: Validation, *, quiet: bool = False) -> None:
    """How far the bundle's outputs are from the whole model's; if ``quiet``, only whether that is near enough."""
    figures = ("max abs", "max rel", "cosine", "top-1", "top-5")
    columns = [Column("output"), *(Column(figure, numeric=True) for figure in figures)]
    rows = [
        [
            output.name,
            f"{output.max_abs:.3g}",
            f"{output.max_rel:.3g}",
            f"{output.cosine:.9f}",
            f"{output.top1:.1%}" if output.top1 is not None else "-",
            f"{output.top5:.1%}" if output.top5 is not None else "-",
        ]
        for output in validation.outputs
    ]
    wanted = "bit for bit equal" if validation.tolerance == 0 else f"within {validation.tolerance:g} of the largest output"
    verdict = "passed" if validation.passed else "FAILED"
    show([*(table(columns, rows) if not quiet else ()), f"{verdict}: {validation.samples} inputs, wanted {wanted}"])


def _facts(manifest: Manifest, whole: str | None = None) -> Iterator[str]:
    model = manifest.model
    yield from fact("model", model.name)
    yield from fact("parameters", f"{model.parameters:,} ({megabytes(model.weight_bytes)} of weights)")
    if whole:
        yield from fact("whole-model peak", f"{whole} (predicted, one partition)")
    yield from fact("target", f"{manifest.target.name}, {manifest.target.threads} threads")
    yield from fact("budget", megabytes(manifest.budget_bytes))


def _cuts(steps: Sequence[Step]) -> Iterator[str]:
    """Why each cut is where it is; neighbours with the same reason together."""
    for reason, group in itertools.groupby(steps[1:], key=lambda step: step.reason):
        names = [step.name for step in group]
        where = f"cut before {names[0]}" if len(names) == 1 else f"cuts before {names[0]} to {names[-1]}"
        yield from prose(f"{where}: {reason}", sys.stdout)


def _steps_table(steps: Iterable[Step], leaving: Iterable[int]) -> Iterator[str]:
    columns = [
        Column("partition"),
        Column("operators", numeric=True, spare=True),
        Column("weights", numeric=True),
        Column("activations", numeric=True),
        Column("pinned", numeric=True, spare=True),
        Column("read ahead", numeric=True, spare=True),
        Column("process peak", numeric=True),
        Column("leaves", numeric=True),
    ]
    rows = [
        [
            step.name,
            str(len(step.operators)),
            megabytes(step.weight_bytes),
            megabytes(step.activation_bytes),
            megabytes(step.pinned_bytes),
            megabytes(step.ahead_bytes),
            megabytes(step.peak_bytes),
            megabytes(nbytes),
        ]
        for step, nbytes in zip(steps, leaving, strict=True)
    ]
    return table(columns, rows)


def _pinned_bytes(manifest: Manifest) -> int:
    """Weights that are read once."""
    return sum(step.pinned_bytes for step in manifest.steps)


def _streamed_bytes(manifest: Manifest) -> int:
    """Weights that are read for every inference."""
    return sum(step.weights.size_bytes for step in manifest.steps if step.weights) - _pinned_bytes(manifest)
