"""Run ``hyps-manager``: serve a bundle with the connected workers, make a hub's files and credentials, show the status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hyps.runtime.cluster.cli.hub import add_hub_commands
from hyps.runtime.cluster.cli.options import DATABASE_NAME, MANAGER_PROGRAM, add_hub
from hyps.runtime.cluster.cli.plan import add_plan
from hyps.runtime.cluster.cli.serve import add_serve
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit
from hyps.runtime.terminal.parser import Parser, add_about, add_volume

_COMMANDS = ("serve", "plan", "init-hub", "add-worker", "add-client", "add-viewer", "status", "profiles")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-manager`` and exit with a code of `hyps.runtime.terminal.exit.EXIT_CODES`."""
    exit_on_signals()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] not in (*_COMMANDS, "-h", "--help", "--version", "--show-completion"):
        given.insert(0, "serve")
    options = manager_parser().parse_args(given)
    unwind_on_signals()
    run_and_exit(MANAGER_PROGRAM, partial(options.act, options), (RuntimeFault,))


def manager_parser() -> Parser:
    """Return the parser of ``hyps-manager``."""
    parser = Parser(
        prog=MANAGER_PROGRAM,
        description="Set up and manage several devices that run one network.",
        examples=("hyps-manager init-hub hub --host 192.168.1.2", "hyps-manager bundle --join hub/manager.join"),
    )
    add_about(parser, ("paho-mqtt", "cryptography", "fastapi", "uvicorn"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands)
    add_plan(commands)
    add_hub_commands(commands)
    status = commands.add_parser("status", help="show workers, placements, queues and rates")
    add_hub(status)
    status.add_argument("--watch", action="store_true", help="show it as it changes, until ctrl-C")
    status.add_argument("--json", action="store_true", help="print each status as one line of JSON")
    status.set_defaults(act=_status)
    _add_profiles(commands)
    return parser


def _add_profiles(commands: argparse._SubParsersAction[Parser]) -> None:
    profiles = commands.add_parser(
        "profiles", help="list, import, export or remove what is known of the speed of boards (step profiles)"
    )
    profiles.add_argument(
        "--profiles",
        type=Path,
        default=Path(DATABASE_NAME),
        metavar="FILE",
        help=f"the manager's database (default: {DATABASE_NAME})",
    )
    act = profiles.add_mutually_exclusive_group()
    act.add_argument(
        "--import", dest="files", type=Path, nargs="+", metavar="FILE", help="add files that 'hyps-run profile' wrote"
    )
    act.add_argument("--export", metavar="CLASS", help="write a class of boards as a step profile, to --output")
    act.add_argument("--remove", metavar="CLASS", help="forget a class of boards")
    profiles.add_argument(
        "-o", "--output", type=Path, default=Path("step_profile.json"), metavar="FILE", help="the file that --export writes"
    )
    profiles.add_argument("--json", action="store_true", help="print the classes of boards as one JSON list")
    add_volume(profiles)
    profiles.set_defaults(act=_profiles)


def _status(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.cli.status import show_status

    show_status(options)


def _profiles(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.cli.profiles import manage_profiles

    manage_profiles(options)
