"""Take the times of steps from the profiles that ``hyps-manager plan`` names, and say where they are from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.planning.fleets import PlannedFleet
from hyps.runtime.cluster.planning.step_times import ClassTimes, profiled_times, rated_times
from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.step_measurement import StepMeasurement
from hyps.runtime.terminal.console import note, prose
from hyps.runtime.terminal.tables import Column, table


def planned_times(options: argparse.Namespace, manifest: Manifest, planned: PlannedFleet) -> tuple[ClassTimes, ...]:
    """Return the times of the bundle's steps on each class; say which files are of none of them.

    What the files hold counts before what the database does. Raises `ProfileError`, and `BundleError` where a step's model
    cannot be read.
    """
    if not options.files and options.profiles is None:
        return rated_times(manifest, planned)
    from hyps.runtime.profiling.profile_file import read_step_profile
    from hyps.runtime.profiling.step_content import step_contents
    from hyps.runtime.profiling.step_measurement import measurements_of

    profiles = [(path, read_step_profile(path)) for path in options.files]
    measured = [each for _, profile in profiles for each in measurements_of(profile)]
    if options.profiles is not None:
        from_files = {(each.board_class, each.content.key) for each in measured}
        known = _from_database(options.profiles)
        measured += [each for each in known if (each.board_class, each.content.key) not in from_files]
    found = profiled_times(manifest, planned, step_contents(options.bundle, manifest), measured)
    for path, profile in profiles:
        if profile.board_class not in planned.profiled_as.values() and not options.quiet:
            note(f"{path} is not used: the boards file has no class {profile.board_class!r}", "hyps-manager")
    return found


def _from_database(path: Path) -> list[StepMeasurement]:
    from hyps.runtime.profiling.profile_database import ProfileDatabase

    if not path.exists():
        raise ProfileError(f"there is no profile database {path}", "name the manager's: hyps-profiles.sqlite")
    with closing(ProfileDatabase(path)) as database:
        return database.measurements()


def times_lines(times: Sequence[ClassTimes]) -> Iterator[str]:
    """Yield a table that says for each class how its steps' times are known."""
    if not any(each.measured or each.by_regression for each in times):
        yield from prose("times of steps: by the speed of each class; --profile takes measured ones", sys.stdout)
        return
    columns = (
        Column("times of steps on"),
        *(Column(name, numeric=True) for name in ("measured", "by regression", "its error", "by speed")),
    )
    rows = (
        [
            each.board_class,
            str(each.measured),
            str(each.by_regression),
            "-" if each.regression_error is None else f"{each.regression_error:.0%}",
            str(each.by_rate),
        ]
        for each in times
    )
    yield from table(columns, rows)


def times_plain(times: ClassTimes) -> Mapping[str, object]:
    """Return how a class's times are known, for JSON."""
    return {
        "class": times.board_class,
        "profiled_as": times.profiled_as,
        "measured": times.measured,
        "by_regression": times.by_regression,
        "regression_error": times.regression_error,
        "by_speed": times.by_rate,
    }
