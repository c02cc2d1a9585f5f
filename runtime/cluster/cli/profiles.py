"""List, import, export and remove the classes of boards in a manager's profile database, for ``hyps-manager profiles``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import msgspec

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.profile_database import KnownClass, ProfileDatabase
from hyps.runtime.profiling.profile_file import read_step_profile, write_step_profile
from hyps.runtime.suggestions import did_you_mean
from hyps.runtime.terminal.console import json_text, show
from hyps.runtime.terminal.tables import Column, table

#: What the sources of times are called in the table.
_SOURCES = {"file": "files", "worker": "workers' profiles", "answers": "answers"}


def manage_profiles(options: argparse.Namespace) -> None:
    """Do what the options say, and print the classes that are known then. Raises `RuntimeFault`."""
    if not options.files and not options.profiles.exists():
        raise ProfileError(
            f"there is no profile database {options.profiles}",
            "name the manager's with --profiles, or add step profiles with --import",
        )
    profiles = [read_step_profile(path) for path in options.files or ()]
    with closing(ProfileDatabase(options.profiles)) as database:
        for profile in profiles:
            database.import_file(profile)
        if options.export:
            _check_known(database, options.export)
            write_step_profile(options.output, database.export_file(options.export))
        if options.remove:
            _check_known(database, options.remove)
            database.remove(options.remove)
        classes = database.classes()
    if options.json:
        show([json_text(msgspec.json.encode(classes))])
    elif not options.quiet:
        show(_lines(classes))


def _check_known(database: ProfileDatabase, board_class: str) -> None:
    names = [each.board_class for each in database.classes()]
    if board_class not in names:
        near = did_you_mean(board_class, names)
        known = f"known are: {'; '.join(names)}" if names else "the database is empty"
        raise ProfileError(f"no class of boards {board_class!r} is known", f"{near}{known}")


def _lines(classes: Sequence[KnownClass]) -> Iterator[str]:
    if not classes:
        yield "no board was profiled yet; run 'hyps-run profile BUNDLE' on one of each kind, and add the file with --import"
        return
    columns = (
        Column("class of boards"),
        Column("steps", numeric=True),
        Column("reporters", numeric=True, spare=True),
        Column("from", spare=True),
        Column("last", spare=True),
    )
    rows = [
        [
            each.board_class,
            str(each.steps),
            str(each.reporters),
            ", ".join(_SOURCES[source] for source in each.sources),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.changed)),
        ]
        for each in classes
    ]
    yield from table(columns, rows)
