"""Run ``make bench-placement``: the thesis's systems simulated, and predictions against real workers."""

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

from tests.bench.machine import commit
from tests.bench.main import measured
from tests.bench.place import Place
from tests.bench.placement_drawing import placement_drawings
from tests.bench.placement_page import placement_page
from tests.bench.placement_progress import RealProgress, Unfinished
from tests.bench.placement_real import real_runs
from tests.bench.placement_results import PlacementResults
from tests.bench.placement_scale import largest
from tests.bench.placement_systems import simulated_systems
from tests.bench.readings import load, save
from tests.bench.written_page import write_page
from tests.repository import ROOT

DOCS, NAME = ROOT / "docs", "placement"


def systems(place: Place) -> Any:
    """Simulate the thesis's systems."""
    return simulated_systems(place.say)


PARTS = ("systems", "real")
#: The part that is only printed.
SCALE = "scale"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make every part, or those that were named; each replaces what was known of it. Then write the page.

    Last, print how long planning takes for 1,000 steps and 1,000 boards, which is not kept.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.placement", description="Placements, simulated and measured."
    )
    parser.add_argument("--only", action="append", choices=[*PARTS, SCALE], help="this part alone (repeatable)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=600.0,
        help="of 'real', begin no case after so many seconds; the next call goes on (default: 600)",
    )
    parser.add_argument("--render", action="store_true", help="make nothing: page and plots from the raw results")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    out, path = Console(highlight=False), DOCS / f"{NAME}.json"
    wanted = () if options.render else options.only or [*PARTS, SCALE]
    state = commit()
    progress = RealProgress(state.partition(" ")[0], options.seconds)

    def real(place: Place) -> Any:
        return real_runs(place, progress)

    measures: dict[str, Callable[[Place], Any]] = {"systems": systems, "real": real}
    for name in PARTS:
        if name not in wanted:
            continue
        try:
            part = measured(measures[name], 1, state, out)
        except Unfinished as reason:
            out.print(f"{name} is unfinished: {reason}")
            continue
        changed: dict[str, Any] = {name: part}
        save(replace(load(path, PlacementResults), **changed), path)
        if name == "real":
            progress.end()
    write_placements(load(path, PlacementResults), DOCS)
    out.print(f"written: {DOCS / NAME}.md")
    for line in largest() if SCALE in wanted else ():
        out.print(line)


def write_placements(results: PlacementResults, docs: Path) -> None:
    """Write the page and its plots."""
    drawn = placement_drawings(results.systems.result or () if results.systems is not None else ())
    write_page(docs, NAME, placement_page(results), drawn)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left
    main()
