"""What the compiler tells: tables for people, the same as data for scripts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hyps.compiler.copying import Progress as Advance
from hyps.compiler.pipeline import Compiled
from hyps.passes.units import megabytes
from hyps.runtime.manifest import Manifest, Step

if TYPE_CHECKING:
    from hyps.compiler.validate import Validation

#: Tables are made for terminals of at least this width, and for files.
WIDTH = 100


def console() -> Console:
    """Where reports go: standard output, coloured only on a terminal."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, emoji=False, soft_wrap=False)


def table(columns: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]], title: str | None = None) -> Table:
    """A table of (heading, whether it holds numbers) columns."""
    drawn = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading, numeric in columns:
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        drawn.add_row(*map(Text, row))  # cells are names and numbers, never markup
    return drawn


def print_json(data: Any) -> None:
    """Data for scripts, on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def print_compiled(compiled: Compiled, output: str) -> None:
    """The summary of a compilation."""
    plan, manifest = compiled.plan, compiled.manifest
    out = console()
    _print_facts(out, manifest, whole=megabytes(plan.whole_peak_bytes))
    out.print()
    out.print(_steps_table(manifest.steps, [part.leaving_bytes for part in plan.partitions]))
    out.print()
    for change in plan.changes:
        _prose(out, f"{change.operator} is {change.what}: {change.why}")
    _print_reasons(out, manifest.steps)
    exact = "bit for bit the whole model's, same session options" if plan.exact else f"inexact: {plan.inexact_reason}"
    out.print(f"result           {exact}", markup=False)
    out.print(f"highest peak     {megabytes(plan.peak_bytes)} of {megabytes(plan.budget_bytes)}")
    out.print(f"stay in memory   {megabytes(_pinned_bytes(manifest))} of the weights")
    out.print(f"read every time  {megabytes(_streamed_bytes(manifest))} of the weights")
    out.print(f"estimated time   {plan.latency_s:.2g} s an inference, what is read coming from storage")
    out.print(f"smallest budget  {megabytes(plan.smallest_budget_bytes)} would work")
    _prose(out, f"written to       {output}")


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
        "bundle": output,
    }


def print_manifest(manifest: Manifest) -> None:
    """What ``hypsc inspect`` shows."""
    out = console()
    _print_facts(out, manifest)
    for kind, names in (("input", manifest.inputs), ("output", tuple(output.name for output in manifest.outputs))):
        for name in names:
            record = manifest.tensors[name]
            out.print(f"{kind:<16} {name} {record.dtype}{list(record.shape)}", markup=False)
    out.print(f"preprocessing    {manifest.preprocess or 'none: takes .npy and .npz'}", markup=False)
    out.print(f"labels           {len(manifest.labels) if manifest.labels else 'none'}")
    out.print()
    sizes = {name: record.nbytes for name, record in manifest.tensors.items()}
    out.print(_steps_table(manifest.steps, [sum(sizes[name] for name in step.live) for step in manifest.steps]))
    out.print()
    _print_reasons(out, manifest.steps)


def print_validation(validation: Validation) -> None:
    """How far the bundle's outputs are from the whole model's."""
    columns = [
        ("output", False),
        ("max abs", True),
        ("max rel", True),
        ("cosine", True),
        ("top-1", True),
        ("top-5", True),
    ]
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
    out = console()
    out.print(table(columns, rows))
    wanted = "bit for bit equal" if validation.tolerance == 0 else f"within {validation.tolerance:g} of the largest output"
    verdict = "passed" if validation.passed else "FAILED"
    out.print(f"{verdict}: {validation.samples} inputs, wanted {wanted}")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A progress bar with the time left (a moving one without ``total``) on standard error, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _print_facts(out: Console, manifest: Manifest, whole: str | None = None) -> None:
    model = manifest.model
    out.print(f"model            {model.name}", markup=False)
    out.print(f"parameters       {model.parameters:,} ({megabytes(model.weight_bytes)} of weights)")
    if whole:
        out.print(f"whole-model peak {whole} (predicted, one partition)")
    out.print(f"target           {manifest.target.name}, {manifest.target.threads} threads", markup=False)
    out.print(f"budget           {megabytes(manifest.budget_bytes)}")


def _print_reasons(out: Console, steps: Sequence[Step]) -> None:
    """Why each cut is where it is; neighbours with the same reason on one line."""
    for reason, group in itertools.groupby(steps[1:], key=lambda step: step.reason):
        names = [step.name for step in group]
        where = f"cut before {names[0]}" if len(names) == 1 else f"cuts before {names[0]} to {names[-1]}"
        _prose(out, f"{where}: {reason}")


def _prose(out: Console, line: str) -> None:
    """A line that the terminal may wrap, but we do not."""
    out.print(line, markup=False, soft_wrap=True)


def _steps_table(steps: Iterable[Step], leaving: Iterable[int]) -> Table:
    columns = [
        ("partition", False),
        ("operators", True),
        ("weights", True),
        ("activations", True),
        ("pinned", True),
        ("read ahead", True),
        ("process peak", True),
        ("leaves", True),
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
