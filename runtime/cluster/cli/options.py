"""What the cluster's commands share: how to reach the hub, and how to say what happens."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from hyps.runtime.cli.options import add_volume
from hyps.runtime.cluster.broker.join import Join, read_join
from hyps.runtime.errors import HubError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def add_hub(parser: argparse.ArgumentParser) -> None:
    """The options that say where the hub is, and how much is told."""
    parser.add_argument("--hub", metavar="URL", help="mqtt://HOST:PORT, or mqtts:// for TLS")
    parser.add_argument("--join", type=Path, metavar="FILE", help="a join file: the hub, this board's name and its secret")
    add_volume(parser, "what happens")


def hub_of(options: argparse.Namespace) -> Join:
    """How to reach the hub that `add_hub`'s options name. Raises `HubError`."""
    return hub_at(options.hub, options.join)


def hub_at(hub: str | None, join_file: Path | None, prefix: str = "--") -> Join:
    """How to reach a hub; an address given besides a join file counts. Raises `HubError`."""
    join = read_join(join_file) if join_file else None
    if hub is None:
        if join is None:
            raise HubError(f"name the hub: {prefix}hub mqtt://HOST:PORT, or {prefix}join FILE")
        return join
    found = Join(
        hub=hub,
        name=join.name if join else None,
        password=join.password if join else None,
        authority=join.authority if join else None,
    )
    if found.password and not found.address.tls:
        raise HubError(f"the join file's secret would travel unencrypted: give {prefix}hub as mqtts://")
    return found


def size(text: str) -> int:
    """Bytes of ``700MB`` or ``1GiB``."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMG]I?)?B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError("must be a size such as 700MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def log_to_stderr(program: str, options: argparse.Namespace) -> None:
    """Warnings, with ``--verbose`` everything, with ``--quiet`` errors, a line each."""
    level = logging.INFO if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format=f"{program}: %(message)s")
