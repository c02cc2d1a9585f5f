"""Make a hub's configuration and the credentials of its users: ``hyps-manager init-hub``, ``add-worker`` and others."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from hyps.runtime.cluster.cli.options import MANAGER_PROGRAM, operator_lines
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.terminal.console import json_text, note, show
from hyps.runtime.terminal.parser import Parser, add_volume


def add_hub_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the parsers of these commands."""
    _add_init_hub(commands)
    _add_users(commands)


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


def _init_hub(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import CONFIGURATION, init_hub

    hosts = options.host or [socket.gethostname()]
    init_hub(options.folder, [*dict.fromkeys([*hosts, "localhost", "127.0.0.1"])], options.port)
    say = operator_lines(options)
    say(f"{options.folder} holds the hub; start it with: mosquitto -c {options.folder / CONFIGURATION}")
    say(f"devices reach it at mqtts://{hosts[0]}:{options.port}; print a device's join file: hyps-manager add-worker NAME")


def _add(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.hub_files import add_user
    from hyps.runtime.cluster.broker.join import encode_join

    show([json_text(encode_join(add_user(options.hub_dir, options.role, options.name))).removesuffix("\n")])
    if not options.quiet:
        note(
            f"a running hub admits {options.name} once it reads its files again: kill -HUP $(pidof mosquitto)",
            MANAGER_PROGRAM,
        )


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 6 else 0
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError("must be a port, 1 to 65535")
    return number
