"""``hypsc analyze``: a table of a model's operators, and where it can be cut."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hyps.compiler.analysis import Analysis, OperatorRow, TypeRow
from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.cli import options
from hyps.compiler.cli.reporter import Console
from hyps.compiler.cli.summary import fact, print_json
from hyps.compiler.pipeline import analyse
from hyps.runtime.terminal.console import prose, show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes


class Sort(StrEnum):
    """By what operators are sorted, the most first; ``order``: as they run."""

    order = "order"
    weights = "weights"
    activations = "activations"
    macs = "macs"
    live = "live"
    alone = "alone"


#: What `_figures` of a row are.
_HEAD = ("params", "weights", "activations", "MACs", "live")
_FIGURE = {
    Sort.weights: "weight_bytes",
    Sort.activations: "activation_bytes",
    Sort.macs: "multiply_adds",
    Sort.live: "live_bytes",
    Sort.alone: "alone_bytes",
}


def analyze(
    model: options.ModelArgument,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    custom_ops: options.CustomOps = None,
    sort: Annotated[Sort, typer.Option(help="By what operators are sorted, the most first.")] = Sort.order,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="Show so many operators.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the operators to it, too.")] = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Show what MODEL is made of: each operator's memory and work, and where it can be cut."""
    telling = Console(quiet=quiet, verbose=verbose)
    if csv_file:
        check_file(csv_file, force=True, option="--csv")
    job = options.planning(model, target, memory, threads, input_shape, custom_ops)
    with telling.progress("analysing", None):
        found = analyse(job)
    rows = list(found.operators)
    if sort is not Sort.order:
        rows.sort(key=lambda row: getattr(row, _FIGURE[sort]), reverse=True)
    rows = rows[:top]
    if csv_file:
        write_files(csv_file.parent, {csv_file.name: _csv(rows)}, option="--csv")
    if json:
        print_json(replace(found, operators=tuple(rows)))
    elif not (quiet and csv_file):
        show(_lines(found, rows))


def _csv(rows: Iterable[OperatorRow]) -> bytes:
    """The operators as UTF-8, shapes as ``1x3x224x224``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(field.name for field in fields(OperatorRow))
    writer.writerows((asdict(row) | {"shape": "x".join(map(str, row.shape))}).values() for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _lines(found: Analysis, rows: list[OperatorRow]) -> Iterator[str]:
    figures = [Column(figure, numeric=True, spare=figure == "params") for figure in _HEAD]
    shapes = ("x".join(map(str, row.shape)) for row in rows)
    yield from table(
        [Column("operator"), Column("type"), Column("output"), *figures],
        ([row.name, row.op_type, shape, *_figures(row)] for row, shape in zip(rows, shapes, strict=True)),
    )
    if len(rows) < len(found.operators):
        yield f"... {len(found.operators) - len(rows)} more operators"
    yield ""
    yield from table(
        [Column("type"), Column("count", numeric=True), *figures],
        ([row.op_type, str(row.operators), *_figures(row)] for row in found.types),
    )
    yield ""
    yield from fact("model", found.model)
    yield from fact("parameters", f"{found.parameters:,} ({megabytes(found.weight_bytes)} of weights)")
    yield from fact("multiply-adds", _count(found.multiply_adds))
    yield from fact("whole-model peak", f"{megabytes(found.whole_peak_bytes)} (predicted, one partition)")
    smallest = found.smallest_budget_bytes
    yield from fact("smallest budget", megabytes(smallest) if smallest else f"none: {found.why_none}")
    if found.budget_bytes:
        yield from fact("budget", f"{megabytes(found.budget_bytes)} ({found.target})")
    yield ""
    if not found.splits:
        unknown = "" if found.budget_bytes else " without a budget"
        yield from prose(f"no pooling to cut behind, and nothing that is too big by itself{unknown}", sys.stdout)
        return
    columns = [Column("cut behind"), Column("kind"), Column("crosses", numeric=True), Column("reason")]
    yield from table(columns, ([p.behind, p.kind, megabytes(p.crossing_bytes), p.reason] for p in found.splits))


def _figures(row: OperatorRow | TypeRow) -> list[str]:
    figure = {
        name: int(getattr(row, name))
        for name in ("parameters", "weight_bytes", "activation_bytes", "multiply_adds", "live_bytes")
    }
    return [
        f"{figure['parameters']:,}" if figure["parameters"] else "",
        megabytes(figure["weight_bytes"]) if figure["weight_bytes"] else "",
        megabytes(figure["activation_bytes"]),
        _count(figure["multiply_adds"]) if figure["multiply_adds"] else "",
        megabytes(figure["live_bytes"]),
    ]


def _count(number: int) -> str:
    """``15.5 G``: three digits and a unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
