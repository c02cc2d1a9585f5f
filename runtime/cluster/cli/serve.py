"""Run ``hyps-manager serve``: serve a bundle to clients with the connected workers."""

from __future__ import annotations

import argparse
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.cluster.cli.code_options import add_codes, code_options
from hyps.runtime.cluster.cli.options import DATABASE_NAME, MANAGER_PROGRAM, add_hub, hub_of, operator_lines, say_line
from hyps.runtime.cluster.protocol.topics import checked_name
from hyps.runtime.errors import HubError
from hyps.runtime.terminal.logs import log_to_stderr
from hyps.runtime.terminal.parser import Parser, add_choice, add_power, count
from hyps.runtime.web.serve import add_web, serve

if TYPE_CHECKING:
    from hyps.runtime.cluster.broker.join import Address
    from hyps.runtime.cluster.manager.energy import OwnBoard


def add_serve(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("serve", help="serve a bundle to clients; 'hyps-manager DIR' is the same")
    parser.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="the bundle's folder, made by 'hypsc compile'; not needed with --web",
    )
    add_hub(parser)
    parser.add_argument("--journal", type=Path, metavar="DIR", help="the folder that records jobs (default: DIR.journal)")
    parser.add_argument(
        "--profiles",
        type=Path,
        metavar="FILE",
        help=f"the database of what workers measure of steps (default: {DATABASE_NAME} next to the journal)",
    )
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="wait for N workers before the first placement (default: 1)"
    )
    parser.add_argument(
        "--lease",
        type=count,
        default=120,
        metavar="S",
        help="the seconds that a worker has for one partition (default: 120)",
    )
    parser.add_argument(
        "--replicas", type=count, default=1, metavar="N", help="place each partition on N workers; the first answer wins"
    )
    parser.add_argument(
        "--vote",
        type=_votes,
        default=1,
        metavar="N",
        help="place each partition on N workers; the majority of the answers wins (codes of N - 1 parity shards check "
        "their own)",
    )
    add_codes(parser)
    parser.add_argument(
        "--exit-policy",
        default="never",
        metavar="POLICY",
        help="end inferences at early exits where POLICY says: threshold:0.9, or a .json or .onnx file (default: never)",
    )
    parser.add_argument(
        "--offload",
        metavar="URL|FILE",
        help="where the rest of an inference goes when that policy says so: the hub, or a join file, of the tier above",
    )
    add_choice(
        parser,
        "--placement",
        ("pipeline", "best"),
        "best",
        "give each step to one worker, or (default) also deal inputs out to several where that is faster",
    )
    add_choice(
        parser,
        "--objective",
        ("throughput", "latency"),
        "throughput",
        "place for streams of inputs (default), or for the time of one input",
    )
    add_choice(
        parser,
        "--rebalance",
        ("off", "advise", "on"),
        "on",
        "move steps under load when measured speeds say so (default: on), only say so (advise), or never",
    )
    parser.add_argument("--safe", metavar="W1,W2", help="the workers that may see the model's inputs (default: all)")
    parser.add_argument("--compress", action="store_true", help="compress the tensors that are sent, for slow links")
    parser.add_argument("--listen", metavar="ADDRESS", help="serve the partitions' files at this address of this machine")
    add_power(parser)
    add_web(parser)
    parser.set_defaults(act=_serve)


def _serve(options: argparse.Namespace) -> None:
    from hyps.runtime.cluster.broker.connection import manager_link
    from hyps.runtime.cluster.manager.manager import Manager
    from hyps.runtime.cluster.manager.options import ClusterOptions
    from hyps.runtime.cluster.transfer.journal import Journal

    log_to_stderr(MANAGER_PROGRAM, verbose=options.verbose, quiet=options.quiet)
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
        exit_policy=options.exit_policy,
        offload=options.offload,
        **code_options(options),
    )
    with closing(own.meter):
        if options.web is not None:
            serve(options, join, cluster_options, journal, say_line)
        elif bundle and journal:
            Manager(
                bundle,
                manager_link(join),
                Journal(journal),
                cluster_options,
                listen=options.listen,
                say=operator_lines(options),
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


def _votes(text: str) -> int:
    number = count(text)
    if number == 2:
        raise argparse.ArgumentTypeError("must be 3 or more: two answers that differ have no majority")
    return number
