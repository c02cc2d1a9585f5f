"""``hypsc analyze``: print a table of a model's operators, and the places where it can be cut."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyps.compiler.analysis import Analysis, OperatorRow, TypeRow
from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, counted, fact, print_json
from hyps.compiler.planning import analyse
from hyps.runtime.terminal.console import prose, show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

Sort = Literal["order", "weights", "activations", "macs", "live", "alone"]
#: The field of `OperatorRow` that each order sorts by; ``order`` leaves the operators as they run.
_FIELD_OF: Mapping[Sort, str] = {
    "weights": "weight_bytes",
    "activations": "activation_bytes",
    "macs": "multiply_adds",
    "live": "live_bytes",
    "alone": "alone_bytes",
}
#: The headings of `_figures`.
_HEADINGS = ("params", "weights", "activations", "MACs", "live")

_Sort = Annotated[
    Sort, typer.Option(rich_help_panel=options.OUTPUT, help="Sort the operators, largest first; 'order': as they run.")
]
_Top = Annotated[
    int | None, typer.Option(min=1, metavar="N", rich_help_panel=options.OUTPUT, help="Show the first N operators.")
]
_Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", rich_help_panel=options.OUTPUT, help="Also write the operators to a CSV file."),
]


def analyze_command(
    model: options.ModelArgument,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.ThreadsOption = None,
    onnxruntime: options.OnnxruntimeOption = None,
    interface: options.InterfaceOption = "python",
    input_shape: options.ShapeOption = None,
    from_: options.FromOption = None,
    until: options.UntilOption = None,
    custom_ops: options.CustomOpsOption = None,
    sort: _Sort = "order",
    top: _Top = None,
    csv_file: _Csv = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Show the operators of MODEL, and where it can be cut.

    For each operator: weights, activations, multiply-adds, and the memory that is live while it runs.
    """
    console = Console(quiet=quiet, verbose=verbose)
    if csv_file:
        check_file(csv_file, force=True, option="--csv")
    part = options.model_part(from_, until)
    job = options.planning_job(model, target, memory, threads, input_shape, part, custom_ops, onnxruntime, interface)
    with console.progress("analysing", None):
        analysis = analyse(job)
    rows = list(analysis.operators)
    if sort != "order":
        rows.sort(key=lambda row: getattr(row, _FIELD_OF[sort]), reverse=True)
    rows = rows[:top]
    if csv_file:
        write_files(csv_file.parent, {csv_file.name: _csv(rows)}, option="--csv")
    if json:
        print_json(replace(analysis, operators=tuple(rows)))
        return
    if not (quiet and csv_file):
        show(_lines(analysis, rows))
    if csv_file:
        console.wrote(csv_file)


def _csv(rows: Iterable[OperatorRow]) -> bytes:
    """Return the operators as CSV in UTF-8, with shapes as ``1x3x224x224``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(field.name for field in fields(OperatorRow))
    writer.writerows((asdict(row) | {"shape": "x".join(map(str, row.shape))}).values() for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _lines(analysis: Analysis, rows: list[OperatorRow]) -> Iterator[str]:
    figures = [Column(figure, numeric=True, spare=figure == "params") for figure in _HEADINGS]
    shapes = ("x".join(map(str, row.shape)) for row in rows)
    yield from table(
        [Column("operator"), Column("type"), Column("output"), *figures],
        ([row.name, row.op_type, shape, *_figures(row)] for row, shape in zip(rows, shapes, strict=True)),
    )
    if left_out := len(analysis.operators) - len(rows):
        yield f"... {counted(left_out, 'more operator')}"
    yield ""
    yield from table(
        [Column("type"), Column("count", numeric=True), *figures],
        ([row.op_type, str(row.operators), *_figures(row)] for row in analysis.types),
    )
    yield ""
    yield from fact("model", analysis.model)
    yield from fact("parameters", f"{analysis.parameters:,} ({megabytes(analysis.weight_bytes)} of weights)")
    yield from fact("multiply-adds", _count(analysis.multiply_adds))
    yield from fact("whole-model peak", f"{megabytes(analysis.whole_peak_bytes)} (predicted, one partition)")
    smallest = analysis.smallest_budget_bytes
    yield from fact("smallest budget", megabytes(smallest) if smallest else f"none: {analysis.why_none}")
    if analysis.budget_bytes:
        yield from fact("budget", f"{megabytes(analysis.budget_bytes)} ({analysis.target})")
    yield ""
    yield from _codes(analysis)
    if not analysis.splits:
        unknown = "" if analysis.budget_bytes else "; --memory or --target also finds the operators that are too large"
        yield from prose(f"no split points: no pooling to cut after, and no operator that is too large{unknown}", sys.stdout)
        return
    columns = [Column("cut after"), Column("kind"), Column("crosses", numeric=True), Column("reason")]
    yield from table(columns, ([p.behind, p.kind, megabytes(p.crossing_bytes), p.reason] for p in analysis.splits))


def _codes(analysis: Analysis) -> Iterator[str]:
    """Yield a table of the codes that ``--tolerate 1`` gives, and an empty line; nothing where there are none."""
    if not analysis.codes:
        return
    columns = [
        Column("possible code"),
        Column("shards", numeric=True),
        Column("errors grow", numeric=True, spare=True),
        Column("decoding error", numeric=True),
        Column("more weights", numeric=True),
    ]
    rows = (
        [
            code.operator,
            f"{code.shards} + {code.parity}",
            f"{code.amplification:.3g} times",
            f"{code.error_bound:.1e}" if code.error_bound else "none",
            megabytes(code.parity_bytes),
        ]
        for code in analysis.codes
    )
    yield from table(columns, rows)
    yield ""


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
    """Return a number with three digits and a unit: ``15.5 G``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
