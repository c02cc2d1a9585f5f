"""Add the options by which the cluster's commands name the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from hyps.runtime.cluster.broker.join import Join, resolve_join
from hyps.runtime.terminal.parser import add_volume


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
