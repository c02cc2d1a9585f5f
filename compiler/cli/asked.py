"""Parse the values of those options of ``hypsc compile`` that have a form of their own."""

from __future__ import annotations

import typer

from hyps.compiler.errors import OptionError
from hyps.compiler.requests import METHOD_OF, ROW_TILES, requested_code, requested_shard
from hyps.passes.planning.request import RequestedCode, RequestedShard


def asked_shard(text: str) -> RequestedShard:
    """Parse ``NAME=METHOD:N``."""
    name, _, rest = text.rpartition("=")
    method, _, number = rest.partition(":")
    count = int(number) if number.isdecimal() else 0
    if not name or method not in METHOD_OF or count < 2:
        raise typer.BadParameter(
            f"{text!r} is not of the form NAME=METHOD:N, with METHOD one of {', '.join(METHOD_OF)}, and N from 2 on"
        )
    return requested_shard(name, method, count)


def asked_code(text: str) -> RequestedCode:
    """Parse ``NAME=R`` or ``NAME=R:rows``."""
    name, _, rest = text.rpartition("=")
    number, _, shards = rest.partition(":")
    if not name or not number.isdecimal() or rest not in (number, f"{number}:{ROW_TILES}"):
        raise typer.BadParameter(
            f"{text!r} is not of the form NAME=R or NAME=R:{ROW_TILES}, with R the number of shards that may be lost"
        )
    return requested_code(name, int(number), shards)


def asked_exits(text: str | None) -> tuple[str, ...]:
    """Parse ``NAME,...``."""
    return tuple(filter(None, (text or "").split(",")))


def asked_rates(text: str | None) -> tuple[float, ...]:
    """Parse ``RATE,...``. Raises `OptionError`."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise OptionError(f"--exit-rates {text!r} is not of the form RATE,... with numbers from 0 to 1") from None
