"""``hypsc analyze``: a table of a model's operators, and where it can be cut."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from hyps.compiler import options, report
from hyps.compiler.analysis import Analysis, OperatorRow, TypeRow
from hyps.compiler.listings import Json
from hyps.compiler.page_facts import printable
from hyps.compiler.pipeline import analyse
from hyps.compiler.writing import check_file, write_files
from hyps.passes.units import megabytes


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
    model: options.Model,
    target: options.Target = None,
    memory: options.Memory = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    custom_ops: options.CustomOps = None,
    sort: Annotated[Sort, typer.Option(help="By what operators are sorted, the most first.")] = Sort.order,
    top: Annotated[int | None, typer.Option(min=1, help="Show so many operators.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the operators to this file, too.")] = None,
    json: Json = False,
) -> None:
    """Show what MODEL is made of: each operator's memory and work, and where it can be cut."""
    if csv_file:
        check_file(csv_file, force=True, option="--csv")
    job = options.planning(model, target, memory, threads, input_shape, custom_ops)
    with report.progress("analysing", None):
        found = analyse(job)
    rows = list(found.operators)
    if sort is not Sort.order:
        rows.sort(key=lambda row: getattr(row, _FIGURE[sort]), reverse=True)
    rows = rows[:top]
    if csv_file:
        write_files(csv_file.parent, {csv_file.name: _csv(rows)}, option="--csv")
    if json:
        report.print_json(replace(found, operators=tuple(rows)))
    else:
        _print(found, rows)


def _csv(rows: Iterable[OperatorRow]) -> bytes:
    """The operators as UTF-8, shapes as ``1x3x224x224``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(field.name for field in fields(OperatorRow))
    writer.writerows((asdict(row) | {"shape": "x".join(map(str, row.shape))}).values() for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _print(found: Analysis, rows: list[OperatorRow]) -> None:
    out = report.console()
    _print_operators(out, rows)
    if len(rows) < len(found.operators):
        out.print(f"... {len(found.operators) - len(rows)} more operators")
    out.print()
    columns = [("type", False), ("count", True), *((name, True) for name in _HEAD)]
    out.print(report.table(columns, ([row.op_type, str(row.operators), *_figures(row)] for row in found.types)))
    out.print()
    out.print(f"model            {found.model}", markup=False)
    out.print(f"parameters       {found.parameters:,} ({megabytes(found.weight_bytes)} of weights)")
    out.print(f"multiply-adds    {_count(found.multiply_adds)}")
    out.print(f"whole-model peak {megabytes(found.whole_peak_bytes)} (predicted, one partition)")
    smallest = found.smallest_budget_bytes
    out.print(f"smallest budget  {megabytes(smallest) if smallest else f'none: {found.why_none}'}", markup=False)
    if found.budget_bytes:
        out.print(f"budget           {megabytes(found.budget_bytes)} ({found.target})", markup=False)
    out.print()
    points = ([p.behind, p.kind, megabytes(p.crossing_bytes), p.reason] for p in found.splits)
    out.print(report.table([("cut behind", False), ("kind", False), ("crosses", True), ("reason", False)], points))
    if not found.splits:
        out.print(
            "no pooling to cut behind, and nothing that is too big by itself"
            + ("" if found.budget_bytes else " without a budget")
        )
    sys.stdout.flush()


def _print_operators(out: Console, rows: Iterable[OperatorRow]) -> None:
    """A line an operator; a name that has no room on a terminal goes on below.

    By hand: rich takes seconds for thousands of rows.
    """
    cells = [["operator", "type", "output", *_HEAD]]
    cells += [[printable(row.name), row.op_type, "x".join(map(str, row.shape)), *_figures(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if out.is_terminal:
        widths[0] = min(widths[0], max(16, out.width - sum(widths[1:]) - 2 * len(widths[1:])))
    lines = []
    for name, kind, shape, *figures in cells:
        pieces = [name[start : start + widths[0]] for start in range(0, len(name), widths[0])]
        words = [text.ljust(width) for text, width in zip((pieces[0], kind, shape), widths, strict=False)]
        numbers = [text.rjust(width) for text, width in zip(figures, widths[3:], strict=True)]
        lines += ["  ".join([*words, *numbers]), *pieces[1:]]
    out.print(Text(lines[0], style="bold"), soft_wrap=True)
    out.file.writelines(f"{line.rstrip()}\n" for line in lines[1:])


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
