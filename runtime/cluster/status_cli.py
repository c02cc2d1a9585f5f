"""``hyps-manager status``: what the manager at a hub says of itself, as a table, a live one, or JSON."""

from __future__ import annotations

import argparse
import queue
import secrets
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hyps.runtime.cluster import messages
from hyps.runtime.cluster.connection import Connection
from hyps.runtime.cluster.frames import Dropped
from hyps.runtime.cluster.options import hub_of
from hyps.runtime.cluster.status import EXPIRY_S, Status
from hyps.runtime.cluster.topics import STATUS
from hyps.runtime.errors import HubError

if TYPE_CHECKING:
    from rich.console import Group

_GONE = "no manager speaks to this user at this hub: start 'hyps-manager DIR --hub URL', or join as a viewer"


def show(options: argparse.Namespace) -> None:
    """Print the status once, or until interrupted. Raises `HubError`."""
    if not options.json and find_spec("rich") is None:
        raise HubError("the table needs the rich library: pip install 'hyps[manager]', or give --json")
    join = hub_of(options)
    heard: queue.Queue[bytes] = queue.Queue(maxsize=100)

    def received(topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        heard.put(payload)

    name = join.name or f"v{secrets.token_hex(8)}"
    connection = Connection(join, name, received=received, connected=lambda: connection.subscribe([STATUS]))
    connection.open()
    try:
        status = _next(heard)
        if status is None:
            raise HubError(_GONE)
        if not options.watch:
            _print(status, as_json=options.json)
            return
        _watch(heard, status, as_json=options.json)
    finally:
        connection.close()


def _watch(heard: queue.Queue[bytes], status: Status | None, *, as_json: bool) -> None:
    if as_json:
        while True:
            if status:
                _print(status, as_json=True)
            status = _next(heard)
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), refresh_per_second=4) as live:
        while True:
            live.update(tables(status) if status else _GONE)
            status = _next(heard)


def _next(heard: queue.Queue[bytes]) -> Status | None:
    """The next status; None where none comes for as long as one lives."""
    until = time.monotonic() + EXPIRY_S
    while (left := until - time.monotonic()) > 0:
        try:
            return messages.decode(heard.get(timeout=left), Status)
        except (queue.Empty, Dropped):
            continue
    return None


def _print(status: Status, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(messages.encode(status).decode() + "\n")
        sys.stdout.flush()
    else:
        from rich.console import Console

        Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(tables(status))


def tables(status: Status) -> Group:
    """For people: a line, the workers, the shares."""
    from rich.console import Group
    from rich.table import Table

    workers = Table("worker", "memory MB", "GMAC/s", "holds", "sent", "computed/s", "", box=None, title_justify="left")
    for each in status.workers:
        holds = " ".join([*map(str, each.loaded), *(f"({number})" for number in each.loading)]) or "-"
        notes = [f"a group of {each.group}"] if each.group else []
        notes += ["set aside: it answered wrongly"] if each.set_aside else [each.problem] if each.problem else []
        figures = (f"{each.memory_bytes / 1e6:.0f}", f"{each.macs_per_s / 1e9:.1f}", holds, str(each.leases))
        workers.add_row(each.name, *figures, f"{each.computed_per_s:.1f}", "; ".join(notes))
    shares = Table("share", "steps", "on", "waiting", box=None)
    for share in status.shares:
        steps = share.first if share.first == share.last else f"{share.first} to {share.last}"
        homes = ", ".join(f"{home} {state}" for home, state in share.homes.items()) or "nobody"
        shares.add_row(str(share.number), steps, homes, str(share.waiting))
    line = f"{status.model}: {status.jobs} jobs under way, {status.answered} answered, {status.answered_per_s:.1f} a second"
    dropped = ", ".join(f"{count} {reason}" for reason, count in status.dropped.items())
    return Group(line, "", workers, "", shares, *([f"\nmessages not taken: {dropped}"] if dropped else []))
