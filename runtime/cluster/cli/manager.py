"""``hyps-manager``: serve a bundle with the workers that are there; a hub's files and credentials."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hyps.runtime.cli.options import Parser, add_about, add_volume, count
from hyps.runtime.cluster.cli.options import add_hub, hub_of, log_to_stderr
from hyps.runtime.cluster.protocol.topics import Role, checked_name
from hyps.runtime.errors import HubError, RuntimeFault
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.console import note
from hyps.runtime.terminal.exit import run_and_exit
from hyps.runtime.web.serve import add_web, serve

_PROGRAM = "hyps-manager"
_COMMANDS = ("serve", "init-hub", "add-worker", "add-client", "add-viewer", "status")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-manager``; exits as `hyps.runtime.terminal.exit.EXIT_CODES` tells."""
    exit_on_signals()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] not in (*_COMMANDS, "-h", "--help", "--version", "--show-completion"):
        given.insert(0, "serve")
    options = _parser().parse_args(given)
    unwind_on_signals()
    run_and_exit(_PROGRAM, partial(options.act, options), (RuntimeFault,))


def _parser() -> Parser:
    parser = Parser(prog=_PROGRAM, description="The hub and the manager of several devices that run one network.")
    add_about(parser, ("paho-mqtt", "cryptography", "fastapi", "uvicorn"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run a bundle for clients; 'hyps-manager DIR' is the same")
    serve.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="the bundle's folder, made by 'hypsc compile'; not needed with --web",
    )
    add_hub(serve)
    serve.add_argument("--journal", type=Path, metavar="DIR", help="where jobs are written down (default: DIR.journal)")
    serve.add_argument("--workers", type=count, default=1, metavar="N", help="wait for so many at first (default 1)")
    serve.add_argument("--lease", type=count, default=120, metavar="S", help="seconds for one partition (default 120)")
    serve.add_argument(
        "--replicas", type=count, default=1, metavar="N", help="each partition on N workers, first answer wins"
    )
    serve.add_argument("--vote", type=_votes, default=1, metavar="N", help="compare the answers of N workers, the most win")
    serve.add_argument("--safe", metavar="W1,W2", help="the workers that may see the model's inputs (default: all)")
    serve.add_argument("--compress", action="store_true", help="compress tensors on their way, for slow links")
    serve.add_argument("--listen", metavar="ADDRESS", help="serve partitions at this address of this machine")
    add_web(serve)
    serve.set_defaults(act=_serve)
    init = commands.add_parser("init-hub", help="write a complete configuration of Mosquitto, the hub")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new folder for its files, secrets among them")
    init.add_argument(
        "--host",
        action="append",
        metavar="HOST",
        help="a name or address by which boards reach the hub (repeatable; default: this machine's name)",
    )
    init.add_argument("--port", type=_port, default=8883, metavar="N", help="default 8883")
    add_volume(init, "as otherwise")
    init.set_defaults(act=_init_hub)
    for command, role, what in (
        ("add-worker", Role.WORKER, "print a join file for a board that is to run partitions"),
        ("add-client", Role.CLIENT, "print a join file for who submits inputs"),
        ("add-viewer", Role.VIEWER, "print a join file for who watches 'hyps-manager status'"),
    ):
        add = commands.add_parser(command, help=what, description=f"{what}; it holds a secret.")
        add.add_argument("name", metavar="NAME", help="letters, digits, - and _")
        add.add_argument("--hub-dir", type=Path, default=Path("hub"), metavar="DIR", help="the hub's folder (default: hub)")
        add_volume(add, "as otherwise")
        add.set_defaults(act=_add, role=role)
    status = commands.add_parser("status", help="show workers, placements, queues and rates")
    add_hub(status)
    status.add_argument("--watch", action="store_true", help="until ctrl-C, as it changes")
    status.add_argument("--json", action="store_true", help="a line of JSON for each")
    status.set_defaults(act=_status)
    return parser


def _status(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.cli.status import show_status

    show_status(options)


def _serve(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.connection import manager_link
    from hyps.runtime.cluster.manager.manager import Manager
    from hyps.runtime.cluster.manager.options import ClusterOptions
    from hyps.runtime.cluster.transfer.journal import Journal

    log_to_stderr(_PROGRAM, options)
    join = hub_of(options)
    bundle: Path | None = options.bundle
    if bundle is None and options.web is None:
        raise HubError("name the bundle's folder, or serve the page with --web and choose there")
    journal = options.journal or (bundle.absolute().with_name(f"{bundle.absolute().name}.journal") if bundle else None)
    wishes = ClusterOptions(
        least_workers=options.workers,
        replicas=options.replicas,
        votes=options.vote,
        safe=frozenset(map(checked_name, options.safe.split(","))) if options.safe else None,
        lease_s=options.lease,
        compress=options.compress,
    )
    if options.web is not None:
        serve(options, join, wishes, journal, _print)
    elif bundle and journal:
        Manager(bundle, manager_link(join), Journal(journal), wishes, listen=options.listen, say=_quiet(options)).run()


def _init_hub(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import CONFIGURATION, init_hub

    hosts = options.host or [socket.gethostname()]
    init_hub(options.folder, [*dict.fromkeys([*hosts, "localhost", "127.0.0.1"])], options.port)
    tell = _quiet(options)
    tell(f"{options.folder} holds the hub; start it with: mosquitto -c {options.folder / CONFIGURATION}")
    tell(f"boards reach it at mqtts://{hosts[0]}:{options.port}; a board's join file: hyps-manager add-worker NAME")


def _add(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import add_user
    from hyps.runtime.cluster.broker.join import encode_join

    _print(encode_join(add_user(options.hub_dir, options.role, options.name)).decode(), end="")
    if not options.quiet:
        note(f"a hub that runs must read its files again: kill -HUP its process, to let {options.name} in", _PROGRAM)


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError("must be a port, 1 to 65535")
    return number


def _votes(text: str) -> int:
    number = count(text)
    if number == 2:
        raise argparse.ArgumentTypeError("two that differ have no majority: take 3 or more")
    return number


def _quiet(options: argparse.Namespace) -> Callable[[str], None]:
    """What tells what happens."""
    return (lambda text: None) if options.quiet else _print


def _print(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()
