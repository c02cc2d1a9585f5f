"""Define the options of ``hyps-manager`` for codes and losses."""

from __future__ import annotations

import argparse
from typing import Any

from hyps.runtime.terminal.parser import Parser, add_choice, count

#: More losses than a code can tolerate (`hyps.runtime.bundle.codes.MOST_PARITY`).
_MOST_LOSSES = 4


def add_codes(serve: Parser) -> None:
    """Add the options to a parser."""
    serve.add_argument(
        "--tolerate",
        type=losses,
        default=0,
        metavar="R",
        help="let any R workers be lost: by codes where the bundle has them, by R more copies elsewhere",
    )
    add_choice(
        serve,
        "--hedge",
        ("always", "late", "never"),
        "late",
        "decode missing shards as soon as it can be, when they are late (default), or only when their worker is lost",
    )
    serve.add_argument(
        "--straggler-ms",
        type=count,
        metavar="MS",
        help="call a shard late after so many milliseconds (default: what its group took before, and a quarter)",
    )
    serve.add_argument(
        "--exact", action="store_true", help="decode nothing: wait for each shard, so that results are exact bit for bit"
    )


def add_tolerate(plan: Parser) -> None:
    """Add the options of ``plan`` to a parser."""
    plan.add_argument(
        "--tolerate",
        type=losses,
        metavar="R",
        help="tell how many boards more are needed so that any R may be lost, with codes and without",
    )
    plan.add_argument("--table", action="store_true", help="with --tolerate: show what each extra board covers")


def code_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `hyps.runtime.cluster.manager.options.ClusterOptions`."""
    straggler_s = options.straggler_ms / 1e3 if options.straggler_ms is not None else None
    return {
        "tolerate": options.tolerate,
        "hedge": options.hedge,
        "straggler_s": straggler_s,
        "exact": options.exact,
    }


def losses(text: str) -> int:
    """Return the number of losses that a text names."""
    number = count(text)
    if number > _MOST_LOSSES:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_LOSSES}")
    return number
