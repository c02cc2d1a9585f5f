"""Show the status that a manager publishes, as a table, a table that follows changes, or JSON: ``hyps-manager status``."""

from __future__ import annotations

import argparse
import queue
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.cli.options import hub_of
from hyps.runtime.cluster.manager.energy import EnergyLine
from hyps.runtime.cluster.manager.exit_counters import ExitsLine
from hyps.runtime.cluster.manager.rebalancer import RebalancingLine
from hyps.runtime.cluster.manager.status import EXPIRY_S, CodesLine, Status, SubBundleLine, WorkerLine
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.frames import Rejection
from hyps.runtime.cluster.protocol.topics import STATUS
from hyps.runtime.energy.report import joules_text
from hyps.runtime.errors import HubError
from hyps.runtime.terminal.console import height, json_text, plain, prose, show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

_BARS = " ▁▂▃▄▅▆▇█"
_NO_MANAGER = "no manager's status reaches this user at this hub: start 'hyps-manager DIR --hub URL', or join as a viewer"


def show_status(options: argparse.Namespace) -> None:
    """Print the status once, or until interrupted. Raises `HubError`."""
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
            raise HubError(_NO_MANAGER)
        if not options.watch:
            _print(status, as_json=options.json)
            return
        _watch(heard, status, as_json=options.json)
    finally:
        connection.close()


def _watch(heard: queue.Queue[bytes], status: Status | None, *, as_json: bool) -> None:
    drawn = 0
    while True:
        if as_json:
            if status:
                _print(status, as_json=True)
        else:
            lines = cropped(list(table_lines(status)) if status else [_NO_MANAGER])
            show(["\n".join(lines)], over=drawn)
            drawn = len(lines)
        status = _next(heard)


def cropped(lines: list[str]) -> list[str]:
    """Return the lines that fit the terminal's height, so that they can be overwritten."""
    most = height(sys.stdout) - 1
    return lines if len(lines) <= most else [*lines[: most - 1], f"... {len(lines) - most + 1} more lines"]


def _next(heard: queue.Queue[bytes]) -> Status | None:
    """Return the next status; None where none comes before the last one expires."""
    until = time.monotonic() + EXPIRY_S
    while (left := until - time.monotonic()) > 0:
        try:
            return messages.decode_message(heard.get(timeout=left), Status)
        except (queue.Empty, Rejection):
            continue
    return None


def _print(status: Status, *, as_json: bool) -> None:
    show([json_text(messages.encode_message(status))] if as_json else table_lines(status))


def table_lines(status: Status) -> Iterator[str]:
    """Yield the status as text: a summary, the workers, the sub-bundles."""
    if not status.model:
        yield "the manager runs, and serves no bundle: choose one on its page"
        yield ""
        yield from _workers(status)
        return
    jobs = f"{status.jobs} job{'' if status.jobs == 1 else 's'} under way"
    yield f"{plain(status.model)}: {jobs}, {status.answered} answered, {status.answered_per_s:.1f} a second"
    yield ""
    yield from _workers(status)
    yield ""
    columns = (Column("sub-bundle", numeric=True), Column("steps"), Column("on"), Column("waiting", numeric=True))
    yield from table(columns, map(_sub_bundle, status.sub_bundles))
    if status.rebalancing and status.rebalancing.mode != "off":
        yield ""
        yield from _rebalancing(status.rebalancing)
    if status.codes:
        yield ""
        yield from _codes(status.codes)
    if status.exits:
        yield ""
        yield from _exits(status.exits)
    if status.energy:
        yield ""
        yield from _energy(status.energy)
    if status.rejected:
        yield ""
        yield f"rejected messages: {', '.join(f'{count} {plain(reason)}' for reason, count in status.rejected.items())}"


def _codes(line: CodesLine) -> Iterator[str]:
    """Yield what was decoded, whose answers were late, wrong or not needed, and which boards may be lost."""
    for title, counts in (
        ("decoded", line.decoded),
        ("late shards", line.late),
        ("wrong shards", line.wrong),
        ("withdrawn shards", line.withdrawn),
        ("of these not computed", line.spared),
    ):
        if counts:
            yield f"{title}: {', '.join(f'{plain(name)} {count}' for name, count in counts.items())}"
    for text in line.coverage:
        yield from prose(plain(text), sys.stdout)


def _exits(line: ExitsLine) -> Iterator[str]:
    """Yield which exits answered, behind which ones offloaded inferences began, and where rests were offloaded to."""
    for title, counts in (
        ("answered at", line.answered),
        ("begun behind", line.begun),
        ("offloaded to", line.offloaded | ({"nobody, computed here": line.fell_back} if line.fell_back else {})),
    ):
        if counts:
            text = f"{title}: {', '.join(f'{plain(name)} {count}' for name, count in counts.items())}"
            yield from prose(text, sys.stdout)


def _workers(status: Status) -> Iterator[str]:
    """Yield the table of workers."""
    if not status.workers:
        yield "no worker has joined: start hyps-worker on a board"
        return
    numbers = (Column("memory", numeric=True), Column("speed", numeric=True))
    more = (Column("sent", numeric=True), Column("computed", numeric=True), Column("queue, 0 to 10"), Column(""))
    yield from table((Column("worker"), *numbers, Column("holds"), *more), map(_worker, status.workers))


def _energy(line: EnergyLine) -> Iterator[str]:
    """Yield the energy of an inference and each board's power, with its source."""
    if line.static_joules is None or line.dynamic_joules is None:
        each = "nothing was answered"
    else:
        static, dynamic = joules_text(line.static_joules), joules_text(line.dynamic_joules)
        each = f"{joules_text(line.static_joules + line.dynamic_joules)} an inference: {static} static, {dynamic} dynamic"
    yield from prose(
        f"energy over {line.seconds:.0f} s: {each}; {line.watts:.2f} W, of it {line.idle_watts:.2f} W idle", sys.stdout
    )
    for board in line.boards:
        counted = f"; counted with {board.counted_with}, on the same machine" if board.counted_with else ""
        power = f"{board.watts:.2f} W, {board.idle_watts:.2f} W idle"
        yield from prose(f"  {board.name}: {power}, {board.source}{counted}", sys.stdout)
    if line.unknown:
        yield from prose(
            f"  not known: {', '.join(line.unknown)} (there, give --meter CMD or --watts IDLE,BUSY)", sys.stdout
        )


def _worker(each: WorkerLine) -> list[str]:
    holds = " ".join([*map(str, each.loaded), *(f"({number})" for number in each.loading)]) or "-"
    notes = [f"a group of {each.group}"] if each.group else []
    notes += [f"set aside: {each.problem}" if each.set_aside else each.problem] if each.problem else []
    speed, computed = f"{each.macs_per_s / 1e9:.1f} GMAC/s", f"{each.computed_per_s:.1f}/s"
    queue = _histogram(each.queues)
    return [each.name, megabytes(each.memory_bytes), speed, holds, str(each.leases), computed, queue, "; ".join(notes)]


def _histogram(counts: Sequence[int]) -> str:
    """Return how often a queue had 0, 1, ... 9, or 10 and more inputs, as a bar for each; a space for never."""
    most = max(counts, default=0)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts) if most else "-"


def _rebalancing(line: RebalancingLine) -> Iterator[str]:
    """Yield what becomes of the runs of steps, and what the last moves brought."""
    figures = (
        f"{line.present_per_s:.2f} a second now, {line.best_per_s:.2f} at best" if line.best_per_s else "not measured yet"
    )
    busiest = f", {plain(line.bottleneck)} is the busiest" if line.bottleneck else ""
    phase = f"; steps move: {plain(line.phase)}" if line.phase else ""
    yield f"rebalance {plain(line.mode)}: by measured speeds {figures}{busiest}; {plain(line.reason)}{phase}"
    for move in line.moves:
        after = "not measured yet" if move.after_per_s is None else f"{move.after_per_s:.2f}"
        yield f"  moved {move.ago_s:.0f} s ago: {move.before_per_s:.2f} answers a second before, {after} after"


def _sub_bundle(sub_bundle: SubBundleLine) -> list[str]:
    steps = sub_bundle.first if sub_bundle.first == sub_bundle.last else f"{sub_bundle.first} to {sub_bundle.last}"
    seconds = {home: f" {each:.3f} s" for home, each in sub_bundle.service_s.items()}
    homes = ", ".join(f"{home} {state}{seconds.get(home, '')}" for home, state in sub_bundle.homes.items()) or (
        "nobody: it is decoded" if sub_bundle.replaced else "nobody"
    )
    homes += " (inputs are dealt out)" if sub_bundle.dealt else ""
    return [str(sub_bundle.number), steps, homes, str(sub_bundle.waiting)]
