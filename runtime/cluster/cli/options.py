"""Parse the options that the cluster's commands share: the hub, and sizes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from hyps.runtime.cluster.broker.join import Join, read_join
from hyps.runtime.errors import HubError
from hyps.runtime.terminal.parser import add_volume

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


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
    return hub_at(options.hub, options.join)


def hub_at(hub: str | None, join_file: Path | None, prefix: str = "--") -> Join:
    """Return how to reach a hub; an address replaces that of the join file. Raises `HubError`."""
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
    """Parse ``700MB`` or ``1GiB`` into bytes."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMG]I?)?B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError("must be a size such as 700MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])
