"""Run ``make bench``: HyPS against what a user would pick instead; raw results, a page and plots in ``docs/``.

Ratios within one run, for machines are noisy. Parts are kept as they are done, and replace what was known of them alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from hyps.runtime.io.files import replacing
from tests.bench.compilation import compilation
from tests.bench.dependencies import dependencies
from tests.bench.document import page, readme
from tests.bench.drawing import drawings
from tests.bench.latency import latency
from tests.bench.machine import commit, machine
from tests.bench.networks import networks
from tests.bench.place import ROUNDS, Place
from tests.bench.planning import planning
from tests.bench.prediction import prediction
from tests.bench.readings import Part, Results, Skipped, load, save
from tests.bench.slow import batch, storage
from tests.bench.tables import Grid, grids
from tests.bench.words import SECTIONS
from tests.repository import ROOT

DOCS = ROOT / "docs"
NAME = "benchmarks"
Measure = Callable[[Place], Any]
_MEASURES: tuple[Measure, ...] = (latency, networks, storage, batch, prediction, compilation, planning, dependencies)
PARTS = {measure.__name__: measure for measure in _MEASURES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every part, or those that were named, and write what is known then."""
    options = _parser().parse_args(arguments)
    out = Console(width=130 if not sys.stdout.isatty() else None, highlight=False)
    path = options.docs / f"{NAME}.json"
    try:
        load(path, Results)
    except msgspec.DecodeError as error:
        sys.exit(f"{path} is not of this benchmark: {error}; move it away, or choose another folder (--docs)")
    state = commit()
    try:
        for name in () if options.render else options.only or SECTIONS:
            part = measured(PARTS[name], options.rounds, state, out)
            changed: dict[str, Any] = {name: part}
            save(replace(load(path, Results), **changed), path)
            for grid in grids(name, part.result) if part.result is not None else ():
                out.print(_table(grid))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        render(load(path, Results), options.docs)
        out.print(f"written: {options.docs / NAME}.md")


def measured(measure: Measure, rounds: int, state: str, out: Console) -> Part[Any]:
    """One part, in a temporary folder of its own."""
    load_average, started = os.getloadavg()[0], time.monotonic()
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    result = skipped = None
    with (
        tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch,
        out.status(measure.__name__, refresh_per_second=1) as status,
    ):
        described = machine(Path(scratch))
        try:
            result = measure(
                Place(folder=Path(scratch), rounds=rounds, say=lambda text: status.update(f"{measure.__name__}: {text}"))
            )
        except Skipped as reason:
            skipped = str(reason)
    if skipped:
        out.print(f"{measure.__name__} is skipped: {skipped}")
    return Part(
        when=when,
        commit=state,
        machine=described,
        load_average=round(load_average, 2),
        seconds=round(time.monotonic() - started, 1),
        result=result,
        skipped=skipped,
    )


def render(results: Results, docs: Path) -> None:
    """The page and its plots; the project's own README, too, where it is the project's page."""
    (docs / NAME).mkdir(parents=True, exist_ok=True)
    drawn = drawings(results)
    for old in (docs / NAME).glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, content in drawn.items():
        (docs / NAME / f"{name}.svg").write_bytes(content)
    (docs / f"{NAME}.md").write_text(page(results), "utf-8")
    if docs.resolve() == DOCS:
        own = ROOT / "README.md"
        with replacing(own) as partial:
            partial.write_text(readme(own.read_text("utf-8"), results), "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.main", description="What HyPS costs, measured here.")
    parser.add_argument("--only", type=_names, metavar="PART,...", help=f"these parts alone: {', '.join(SECTIONS)}")
    parser.add_argument("--render", action="store_true", help="measure nothing: page and plots from the raw results")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="where to write (default: %(default)s)")
    parser.add_argument("--rounds", type=_rounds, default=ROUNDS, metavar="N", help="runs in turn (default: %(default)s)")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return list(dict.fromkeys(names))


def _rounds(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError("at least 2: the first run of each contender is set apart")
    return int(text)


def _table(grid: Grid) -> Table:
    made = Table(title=grid.title, title_justify="left", box=None)
    for column in grid.columns:
        name = column is grid.columns[0]
        made.add_column(column, justify="left" if name else "right", no_wrap=name)
    for row in grid.rows:
        made.add_row(*row)
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left
    main()
