"""Run ``hyps-manager plan``: plan a bundle's placement on the boards of a file, for every number of boards."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from hyps.runtime.cluster.cli.code_options import add_tolerate
from hyps.runtime.terminal.parser import Parser, add_volume, count


def add_plan(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command's parser."""
    plan = commands.add_parser(
        "plan",
        help="plan a bundle's placement on boards that need not be there",
        description="Plan which boards run which steps of a bundle, for every number of boards, without any board.",
        examples=(
            "hyps-manager plan bundle --boards boards.toml",
            "hyps-manager plan bundle --boards boards.toml --max 4 --compare",
            "hyps-manager plan bundle --tolerate 1 --table",
            "hyps-manager plan bundle --boards boards.toml --profile pi3.json --profile pi4.json",
        ),
    )
    plan.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, made by 'hypsc compile'")
    plan.add_argument(
        "--boards", type=Path, metavar="FILE", help="the file (TOML) that describes boards and links; not with --tolerate"
    )
    add_tolerate(plan)
    plan.add_argument(
        "--profile",
        dest="files",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="take the times of steps from a file that 'hyps-run profile' wrote; repeatable, one for each class of boards",
    )
    plan.add_argument(
        "--profiles", type=Path, metavar="DATABASE", help="take them from what the manager knows, too (hyps-profiles.sqlite)"
    )
    plan.add_argument(
        "--max", type=count, metavar="N", help="plan for up to N boards (default: all of the file, at most 16)"
    )
    plan.add_argument(
        "--objective",
        choices=("throughput", "latency", "energy"),
        default="throughput",
        help="what is best: most inferences a second, least seconds or least joules of one (default: throughput)",
    )
    plan.add_argument(
        "--compare", action="store_true", help="show Hadidi's Algorithm 1 and a simple pipeline beside our placement"
    )
    plan.add_argument(
        "--simulate", type=count, metavar="SECONDS", help="also simulate our placements for so many seconds of a stream"
    )
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the placements as JSON")
    form.add_argument("--csv", action="store_true", help="print a line of comma-separated values for each placement")
    add_volume(plan)
    plan.set_defaults(act=run_plan)


def run_plan(options: argparse.Namespace) -> None:
    """Plan and print. Raises `BoardsError`, `BundleError`, `BudgetError` and `ProfileError`."""
    from hyps.runtime.bundle.integrity import read_manifest
    from hyps.runtime.cluster.cli.plan_coverage import show_coverage
    from hyps.runtime.cluster.cli.plan_output import csv_lines, json_document, text_lines
    from hyps.runtime.cluster.cli.plan_simulation import simulated_row, simulation_lines
    from hyps.runtime.cluster.cli.plan_times import planned_times, times_lines
    from hyps.runtime.cluster.planning.comparison import PlanRow, plan_rows
    from hyps.runtime.cluster.planning.fleets import load_fleet
    from hyps.runtime.cluster.planning.workload import bundle_workload
    from hyps.runtime.errors import BoardsError
    from hyps.runtime.terminal.console import json_text, show
    from hyps.runtime.terminal.progress import Progress

    manifest = read_manifest(options.bundle)
    if options.tolerate:
        show_coverage(options, manifest)
        return
    if options.boards is None:
        raise BoardsError("there is no boards file", "describe the boards in one, and name it with --boards FILE")
    planned = load_fleet(options.boards)
    times = planned_times(options, manifest, planned)
    workload = bundle_workload(manifest, {each.board_class: each.seconds for each in times})
    most = min(options.max or 16, len(planned.fleet.boards))
    progress = Progress(most, "numbers of boards", quiet=options.quiet)

    def counted(rows: Iterator[PlanRow]) -> Iterator[PlanRow]:
        for row in rows:
            progress.set_done(row.count)
            yield row

    rows = list(counted(plan_rows(workload, planned.fleet, most, options.objective, compare=options.compare)))
    progress.clear()
    simulated = {}
    if options.simulate and not options.csv:
        own = [row for row in rows if row.planner == "hyps" and row.evaluation]
        wanted = own if options.json else own[-1:]
        simulated = {row.count: simulated_row(workload, planned.fleet, row, options.simulate) for row in wanted}
    if options.json:
        show([json_text(json_document(workload, times, rows, simulated)).removesuffix("\n")])
    elif options.csv:
        show(csv_lines(rows))
    else:
        show(text_lines(workload, rows, options.objective))
        for found in simulated.values():
            show(["", *simulation_lines(found, options.simulate)])
        show(["", *times_lines(times)])
