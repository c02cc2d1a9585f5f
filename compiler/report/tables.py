"""The report's tables as HTML, every cell of them text."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from hyps.compiler.report.facts import Facts, StepFacts, printable
from hyps.compiler.report.run_profile import Measurements
from hyps.runtime.units import megabytes

#: Longer tables are cut off, which the page says: a browser takes seconds for tens of thousands of rows.
MOST_ROWS = 1_000
#: Names have so many characters at most.
MOST_CHARACTERS = 160
_WORDS = frozenset({"partition", "cut behind", "kind", "reason", "type", "change"})


def escaped(text: str, length: int = MOST_CHARACTERS) -> str:
    """Text for the page: what cannot be printed spelt out, the middle of a long one left out, and escaped."""
    return html.escape(shortened_name(text, length))


def shortened_name(text: str, length: int = MOST_CHARACTERS) -> str:
    """One line of at most so many characters: line ends and terminal codes spelt out, the middle of a long one left out."""
    shown = printable(text)
    return shown if len(shown) <= length else f"{shown[: length // 2]}…{shown[-(length // 2) :]}"


def tables(facts: Facts, measured: Measurements | None) -> Iterator[str]:
    """Tables of partitions, changes, split points and types, each where there is something to tell."""
    if facts.steps:
        head = ["partition", "operators", "weights", "activations", "pinned", "read ahead", "alone", "peak", "leaves"]
        extra = ["resident", "load s", "run s", "read"] if measured else []
        rows = [[*_step(step), *(_run(step, measured) if measured else ()), step.reason] for step in facts.steps]
        yield _table("partitions", "Partitions, and why each begins where it does", [*head, *extra, "reason"], rows)
    if facts.changes:
        yield _table("changes", "What was changed to make it fit", ["change"], [[change] for change in facts.changes])
    if facts.splits:
        rows = [[row.behind, row.kind, megabytes(row.crossing_bytes), row.reason] for row in facts.splits]
        yield _table("splits", "Split points of the model", ["cut behind", "kind", "crosses", "reason"], rows)
    if facts.types:
        head = ["type", "operators", "parameters", "weights", "activations", "multiply-adds", "most live"]
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
        step.alone_bytes,
        step.peak_bytes,
        step.leaving_bytes,
    )
    return [step.name, f"{step.operators:,}", *map(megabytes, sizes)]


def _run(step: StepFacts, measured: Measurements) -> list[str]:
    run = measured.steps.get(step.name)
    if run is None:
        return ["-"] * 4
    return [megabytes(run.resident_bytes), f"{run.load_s:.4f}", f"{run.run_s:.4f}", megabytes(run.read_bytes)]


def _table(name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = ["" if word in _WORDS else ' class="number"' for word in head]
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
    """A row, whose first cell stays where it is when a table is moved sideways."""
    first, *others = (escaped(cell, 600) for cell in row)
    cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
    return f"<tr><td{kinds[0]}><span>{first}</span></td>{cells}</tr>"
