"""Share what the cluster's commands have in common: the hub's options, default names, and lines for the operator."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from hyps.runtime.cluster.broker.join import Join, resolve_join
from hyps.runtime.terminal.console import plain, show
from hyps.runtime.terminal.parser import add_volume

MANAGER_PROGRAM = "hyps-manager"
#: The default name of the profile database.
DATABASE_NAME = "hyps-profiles.sqlite"


def add_hub(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the hub, and the verbosity."""
    parser.add_argument("--hub", metavar="URL", help="the hub's address: mqtt://HOST:PORT, or mqtts:// for TLS")
    parser.add_argument(
        "--join",
        type=Path,
        metavar="FILE",
        help="a join file, which holds the hub's address, this device's name and its secret",
    )
    add_volume(parser, "what happens")


def hub_of(options: argparse.Namespace) -> Join:
    """Return how to reach the hub that `add_hub`'s options name. Raises `HubError`."""
    return resolve_join(options.hub, options.join)


def say_line(text: str) -> None:
    """Print a line for the operator, without control characters."""
    show([plain(text)])


def operator_lines(options: argparse.Namespace) -> Callable[[str], None]:
    """Return the function that prints lines for the operator, unless `add_volume`'s options ask for silence."""
    return (lambda text: None) if options.quiet else say_line
