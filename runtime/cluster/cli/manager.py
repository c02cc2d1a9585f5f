"""Run ``hyps-manager``: serve a bundle with the connected workers, make a hub's files and credentials, show the status."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.cluster.cli.code_options import add_codes, code_options
from hyps.runtime.cluster.cli.options import add_hub, hub_of
from hyps.runtime.cluster.cli.plan import add_plan
from hyps.runtime.cluster.protocol.topics import Role, checked_name
from hyps.runtime.errors import HubError, RuntimeFault
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.console import json_text, note, plain, show
from hyps.runtime.terminal.exit import run_and_exit
from hyps.runtime.terminal.logs import log_to_stderr
from hyps.runtime.terminal.parser import Parser, add_about, add_power, add_volume, count
from hyps.runtime.web.serve import add_web, serve

if TYPE_CHECKING:
    from hyps.runtime.cluster.broker.join import Address
    from hyps.runtime.cluster.manager.energy import OwnBoard

_PROGRAM = "hyps-manager"
#: The default name of the profile database.
DATABASE_NAME = "hyps-profiles.sqlite"
_COMMANDS = ("serve", "plan", "init-hub", "add-worker", "add-client", "add-viewer", "status", "profiles")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-manager`` and exit with a code of `hyps.runtime.terminal.exit.EXIT_CODES`."""
    exit_on_signals()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] not in (*_COMMANDS, "-h", "--help", "--version", "--show-completion"):
        given.insert(0, "serve")
    options = manager_parser().parse_args(given)
    unwind_on_signals()
    run_and_exit(_PROGRAM, partial(options.act, options), (RuntimeFault,))


def manager_parser() -> Parser:
    """Return the parser of ``hyps-manager``."""
    parser = Parser(
        prog=_PROGRAM,
        description="Set up and manage several devices that run one network.",
        examples=("hyps-manager init-hub hub --host 192.168.1.2", "hyps-manager bundle --join hub/manager.join"),
    )
    add_about(parser, ("paho-mqtt", "cryptography", "fastapi", "uvicorn"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    add_plan(commands)
    _add_init_hub(commands)
    _add_users(commands)
    status = commands.add_parser("status", help="show workers, placements, queues and rates")
    add_hub(status)
    status.add_argument("--watch", action="store_true", help="show it as it changes, until ctrl-C")
    status.add_argument("--json", action="store_true", help="print each status as one line of JSON")
    status.set_defaults(act=_status)
    _add_profiles(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[Parser]) -> None:
    serve = commands.add_parser("serve", help="serve a bundle to clients; 'hyps-manager DIR' is the same")
    serve.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="the bundle's folder, made by 'hypsc compile'; not needed with --web",
    )
    add_hub(serve)
    serve.add_argument("--journal", type=Path, metavar="DIR", help="the folder that records jobs (default: DIR.journal)")
    serve.add_argument(
        "--profiles",
        type=Path,
        metavar="FILE",
        help=f"the database of what workers measure of steps (default: {DATABASE_NAME} next to the journal)",
    )
    serve.add_argument(
        "--workers", type=count, default=1, metavar="N", help="wait for N workers before the first placement (default: 1)"
    )
    serve.add_argument(
        "--lease",
        type=count,
        default=120,
        metavar="S",
        help="the seconds that a worker has for one partition (default: 120)",
    )
    serve.add_argument(
        "--replicas", type=count, default=1, metavar="N", help="place each partition on N workers; the first answer wins"
    )
    serve.add_argument(
        "--vote",
        type=_votes,
        default=1,
        metavar="N",
        help="place each partition on N workers; the majority of the answers wins",
    )
    add_codes(serve)
    serve.add_argument(
        "--placement",
        choices=("pipeline", "best"),
        default="best",
        help="give each step to one worker, or (default) also deal inputs out to several where that is faster",
    )
    serve.add_argument(
        "--objective",
        choices=("throughput", "latency"),
        default="throughput",
        help="place for streams of inputs (default), or for the time of one input",
    )
    serve.add_argument(
        "--rebalance",
        choices=("off", "advise", "on"),
        default="on",
        help="move steps under load when measured speeds say so (default: on), only say so (advise), or never",
    )
    serve.add_argument("--safe", metavar="W1,W2", help="the workers that may see the model's inputs (default: all)")
    serve.add_argument("--compress", action="store_true", help="compress the tensors that are sent, for slow links")
    serve.add_argument("--listen", metavar="ADDRESS", help="serve the partitions' files at this address of this machine")
    add_power(serve)
    add_web(serve)
    serve.set_defaults(act=_serve)


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


def _add_init_hub(commands: argparse._SubParsersAction[Parser]) -> None:
    init = commands.add_parser("init-hub", help="write a complete configuration for a hub (Mosquitto)")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new folder for the hub's files, which include secrets")
    init.add_argument(
        "--host",
        action="append",
        metavar="HOST",
        help="a name or address by which devices reach the hub (repeatable; default: this machine's name)",
    )
    init.add_argument("--port", type=_port, default=8883, metavar="N", help="the hub's port (default: 8883)")
    add_volume(init)
    init.set_defaults(act=_init_hub)


def _add_users(commands: argparse._SubParsersAction[Parser]) -> None:
    for command, role, purpose in (
        ("add-worker", Role.WORKER, "print a join file for a device that will run partitions"),
        ("add-client", Role.CLIENT, "print a join file for a client that submits inputs"),
        ("add-viewer", Role.VIEWER, "print a join file for a user of 'hyps-manager status'"),
    ):
        add = commands.add_parser(command, help=purpose, description=f"{purpose.capitalize()}; it holds a secret.")
        add.add_argument("name", metavar="NAME", help="the name: letters, digits, - and _")
        add.add_argument("--hub-dir", type=Path, default=Path("hub"), metavar="DIR", help="the hub's folder (default: hub)")
        add_volume(add)
        add.set_defaults(act=_add, role=role)


def _status(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.cli.status import show_status

    show_status(options)


def _profiles(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.cli.profiles import manage_profiles

    manage_profiles(options)


def _serve(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.connection import manager_link
    from hyps.runtime.cluster.manager.manager import Manager
    from hyps.runtime.cluster.manager.options import ClusterOptions
    from hyps.runtime.cluster.transfer.journal import Journal

    log_to_stderr(_PROGRAM, verbose=options.verbose, quiet=options.quiet)
    join = hub_of(options)
    bundle: Path | None = options.bundle
    if bundle is None and options.web is None:
        raise HubError("name the bundle's folder, or serve the page with --web and choose a bundle there")
    journal = options.journal or (bundle.absolute().with_name(f"{bundle.absolute().name}.journal") if bundle else None)
    own = _own_board(options, join.address)
    cluster_options = ClusterOptions(
        least_workers=options.workers,
        replicas=options.replicas,
        votes=options.vote,
        safe=frozenset(map(checked_name, options.safe.split(","))) if options.safe else None,
        lease_s=options.lease,
        compress=options.compress,
        placement=options.placement,
        objective=options.objective,
        rebalance=options.rebalance,
        profiles=options.profiles or (journal.absolute().parent if journal else Path.cwd()) / DATABASE_NAME,
        own_board=own,
        **code_options(options),
    )
    with closing(own.meter):
        if options.web is not None:
            serve(options, join, cluster_options, journal, _print)
        elif bundle and journal:
            Manager(
                bundle, manager_link(join), Journal(journal), cluster_options, listen=options.listen, say=_say(options)
            ).run()


def _own_board(options: argparse.Namespace, hub: Address) -> OwnBoard:
    """Return the manager's board, with its meter. Raises `EnergyError`."""
    from hyps.runtime.cluster.manager.energy import OwnBoard
    from hyps.runtime.cluster.transfer.file_server import local_address
    from hyps.runtime.energy.board import board_meter, machine_number
    from hyps.runtime.energy.estimate import given_power

    power = given_power(options.watts, os.cpu_count() or 1) if options.watts is not None else None
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(hub.host, hub.port, type=socket.SOCK_STREAM)}
        has_hub = local_address(hub.host, hub.port) in addresses
    except OSError:  # its name is not known yet
        has_hub = False
    return OwnBoard(meter=board_meter(options.meter, power), machine=machine_number(), has_hub=has_hub)


def _init_hub(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import CONFIGURATION, init_hub

    hosts = options.host or [socket.gethostname()]
    init_hub(options.folder, [*dict.fromkeys([*hosts, "localhost", "127.0.0.1"])], options.port)
    say = _say(options)
    say(f"{options.folder} holds the hub; start it with: mosquitto -c {options.folder / CONFIGURATION}")
    say(f"devices reach it at mqtts://{hosts[0]}:{options.port}; print a device's join file: hyps-manager add-worker NAME")


def _add(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import add_user
    from hyps.runtime.cluster.broker.join import encode_join

    show([json_text(encode_join(add_user(options.hub_dir, options.role, options.name))).removesuffix("\n")])
    if not options.quiet:
        note(f"a running hub admits {options.name} once it reads its files again: kill -HUP $(pidof mosquitto)", _PROGRAM)


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError("must be a port, 1 to 65535")
    return number


def _votes(text: str) -> int:
    number = count(text)
    if number == 2:
        raise argparse.ArgumentTypeError("must be 3 or more: two answers that differ have no majority")
    return number


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    """Return the function that prints what happens."""
    return (lambda text: None) if options.quiet else _print


def _print(text: str) -> None:
    show([plain(text)])
