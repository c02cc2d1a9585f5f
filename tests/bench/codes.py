"""Run ``make bench-codes``: kills and stragglers in coded groups, what decoding costs, and what losses do without codes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench.codes_decoding import decoding_costs
from tests.bench.codes_drawing import codes_drawings
from tests.bench.codes_faults import fault_run
from tests.bench.codes_kills import kill_runs
from tests.bench.codes_losses import loss_runs
from tests.bench.codes_page import codes_page
from tests.bench.codes_photographs import photograph_runs
from tests.bench.codes_results import CodesResults
from tests.bench.codes_streams import delay_runs
from tests.bench.machine import commit
from tests.bench.main import measured
from tests.bench.place import Place
from tests.bench.readings import load, save
from tests.bench.written_page import write_page
from tests.repository import ROOT

DOCS, NAME = ROOT / "docs", "codes"


def kills(place: Place) -> Any:
    """Kill workers of a coded group in a stream."""
    return kill_runs(place)


def delays(place: Place) -> Any:
    """Infer by links with heavy-tailed delays."""
    return delay_runs(place)


def decoding(place: Place) -> Any:
    """Measure the errors and the time of decoding."""
    return decoding_costs(place)


def losses(place: Place) -> Any:
    """Measure accuracies when parts of layers are lost."""
    return loss_runs(place)


def photographs(place: Place) -> Any:
    """Lose shards of coded photograph classifiers."""
    return photograph_runs(place)


def faults(place: Place) -> Any:
    """Kill workers and pull cables at random."""
    return fault_run(place)


PARTS: dict[str, Callable[[Place], Any]] = {
    "decoding": decoding,
    "losses": losses,
    "photographs": photographs,
    "kills": kills,
    "delays": delays,
    "faults": faults,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make every part, or those that were named; each replaces what was known of it. Then write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.codes", description="Codes: losses and stragglers.")
    parser.add_argument("--only", action="append", choices=[*PARTS], help="this part alone (repeatable)")
    parser.add_argument("--render", action="store_true", help="make nothing: page and plots from the raw results")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    out, path = Console(highlight=False), DOCS / f"{NAME}.json"
    for name in () if options.render else options.only or PARTS:
        part = measured(PARTS[name], 1, commit(), out)
        save(replace(load(path, CodesResults), **{name: part}), path)
    write_codes(load(path, CodesResults), DOCS)
    out.print(f"written: {DOCS / NAME}.md")


def write_codes(results: CodesResults, docs: Path) -> None:
    """Write the page and its plots."""
    write_page(docs, NAME, codes_page(results), codes_drawings(results))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left
    main()
