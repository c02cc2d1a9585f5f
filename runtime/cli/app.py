"""Start the commands of ``hyps-run``: run a bundle, ``tune`` or ``profile`` it, ``calibrate`` or ``doctor`` this device."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hyps.runtime.cli.options import calibrate_parser, doctor_parser, profile_parser, run_parser, tune_parser
from hyps.runtime.device.process_memory import restart_lean
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.signals import unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit

if TYPE_CHECKING:
    from hyps.runtime.device.link_rates import HubMeasurements


def run_hyps_run(arguments: Sequence[str] | None) -> NoReturn:
    """Run the command that the arguments name, in a process that is kept small, and exit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    commands = {
        "tune": (tune_parser, _tune),
        "profile": (profile_parser, _profile),
        "calibrate": (calibrate_parser, _calibrate),
        "doctor": (doctor_parser, _doctor),
    }
    parser, act = commands.get(given[0] if given else "", (run_parser, _run))
    options = parser().parse_args(given if act is _run else given[1:])
    restart_lean(huge_pages=act is _run and options.batch == 1 and _uses_huge_pages(options.bundle))
    unwind_on_signals()
    run_and_exit("hyps-run", partial(act, options), (RuntimeFault,))


def _uses_huge_pages(bundle: Path) -> bool:
    """Return what the manifest says, before the modules that check it are imported; a wrong answer costs speed or memory."""
    try:
        with (bundle / "manifest.json").open("rb") as stream:
            return re.search(rb'"huge_pages"\s*:\s*true', stream.read(65_536)) is not None
    except OSError:  # reported when the manifest is read
        return False


def _tune(options: argparse.Namespace) -> int:
    from hyps.runtime.execution.lean_imports import import_libraries

    import_libraries()
    from hyps.runtime.cli.tune import tune_bundle

    return tune_bundle(options)


def _profile(options: argparse.Namespace) -> int:
    from hyps.runtime.execution.lean_imports import import_libraries

    import_libraries()
    from hyps.runtime.cli.profile import profile_bundle

    return profile_bundle(options)


def _calibrate(options: argparse.Namespace) -> int:
    from hyps.runtime.calibration.calibrate import calibrate
    from hyps.runtime.calibration.target_file import origins
    from hyps.runtime.terminal.console import note, show

    lines = calibrate(
        options.output,
        options.name,
        options.folder,
        test_memory=options.test_memory,
        probe_hub=partial(_probe_hub, options.hub) if options.hub else None,
        meter=options.meter,
        as_json=options.json,
        quiet=options.quiet,
    )
    if options.json or not options.quiet:
        show(lines)
    for line in origins(options.output) if options.verbose else ():
        note(line)
    return 0


def _probe_hub(hub: str) -> HubMeasurements:
    from hyps.runtime.cluster.broker.join import Join, read_join
    from hyps.runtime.cluster.worker.hub_probe import probe_hub

    join = Join(hub=hub) if "://" in hub else read_join(Path(hub))
    return probe_hub(join, join.name or "calibrate")


def _doctor(options: argparse.Namespace) -> int:
    from hyps.runtime.calibration.doctor import doctor

    return doctor(options.folder, options.bundle, as_json=options.json, quiet=options.quiet, verbose=options.verbose)


def _run(options: argparse.Namespace) -> int:
    from hyps.runtime.cli.interface_choice import c_library
    from hyps.runtime.cli.run_options import run_options

    valid = run_options(options)
    library = c_library(valid)
    if library is None:
        from hyps.runtime.execution.lean_imports import import_libraries

        import_libraries()
    from hyps.runtime.cli.run import run_inputs

    return run_inputs(valid, library)
