"""Render the report's tables as HTML; every cell is text."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from hyps.compiler.report.facts import Facts, StepFacts, shortened_name
from hyps.compiler.report.run_profile import Measurements
from hyps.runtime.units import megabytes

#: Longer tables are cut off, and the page says so: a browser takes seconds for tens of thousands of rows.
MOST_ROWS = 1_000
#: The most characters of a name on the page.
MOST_CHARACTERS = 160
#: The times of a step that was measured (`StepRun`), without ``_s``.
_TIMES = ("wait", "open", "run", "copy", "close", "hash")
#: The classes of the columns that hold words; all others hold figures.
_CLASSES = {"partition": "name", "cut after": "name", "type": "name", "kind": "name", "reason": "reason", "change": "reason"}


def escaped(text: str, length: int = MOST_CHARACTERS) -> str:
    """Return the text as HTML: one line of at most ``length`` characters, with its markup escaped."""
    return html.escape(shortened_name(text, length))


def tables(facts: Facts, measured: Measurements | None) -> Iterator[str]:
    """Yield the tables of partitions, changes, split points and types that have rows."""
    if facts.steps:
        figures = ["operators", "weights", "activations", "pinned", "read ahead", "process peak", "kept after"]
        extra = ["resident", *_TIMES, "faults", "read"] if measured else []
        rows = [[step.name, step.reason, *_step(step), *(_run(step, measured) if measured else ())] for step in facts.steps]
        head = ["partition", "reason", *figures, *extra]
        yield _table("partitions", "Partitions, and why each begins where it does", head, rows)
    if facts.changes:
        yield _table("changes", "What was changed to make it fit", ["change"], [[change] for change in facts.changes])
    if facts.splits:
        rows = [[row.behind, row.kind, megabytes(row.crossing_bytes), row.reason] for row in facts.splits]
        yield _table("splits", "Split points of the model", ["cut after", "kind", "crosses", "reason"], rows)
    if facts.types:
        head = ["type", "operators", "parameters", "weights", "activations", "multiply-adds", "live"]
        rows = [
            [
                row.op_type,
                f"{row.operators:,}",
                f"{row.parameters:,}" if row.parameters else "",
                megabytes(row.weight_bytes) if row.weight_bytes else "",
                megabytes(row.activation_bytes),
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                megabytes(row.live_bytes),
            ]
            for row in facts.types
        ]
        yield _table("types", "Operators by type", head, rows)


def _step(step: StepFacts) -> list[str]:
    sizes = (
        step.weight_bytes,
        step.activation_bytes,
        step.pinned_bytes,
        step.ahead_bytes,
        step.peak_bytes,
        step.leaving_bytes,
    )
    return [f"{step.operators:,}", *map(megabytes, sizes)]


def _run(step: StepFacts, measured: Measurements) -> list[str]:
    run = measured.steps.get(step.name)
    if run is None:
        return ["-"] * (len(_TIMES) + 3)
    times = (f"{getattr(run, f'{time}_s') * 1e3:,.1f} ms" for time in _TIMES)
    faults = f"{run.minor_faults + run.major_faults:,}"
    return [megabytes(run.resident_bytes), *times, faults, megabytes(run.read_bytes)]


def _table(name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [f' class="{_CLASSES.get(word, "number")}"' for word in head]
    columns = "".join(f'<th scope="col"{kind}>{escaped(word)}</th>' for word, kind in zip(head, kinds, strict=True))
    body = "".join(_row(row, kinds) for row in rows[:MOST_ROWS])
    more = f'<p class="caption">The first {MOST_ROWS:,} of {len(rows):,}.</p>' if len(rows) > MOST_ROWS else ""
    label = escaped(title)
    return (
        f'<section class="table" id="table-{name}"><h2>{label}</h2>'
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>{more}</section>"
    )


def _row(row: Sequence[str], kinds: Sequence[str]) -> str:
    """Return a row; its first cell stays in place when the table is scrolled sideways."""
    first, *others = (escaped(cell, 600) for cell in row)
    cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
    return f"<tr><td{kinds[0]}><span>{first}</span></td>{cells}</tr>"
