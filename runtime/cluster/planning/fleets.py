"""Make a fleet from a boards file: figures in SI units, links by name, boards behind a router reached through its link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.cluster.planning import quantities
from hyps.runtime.cluster.planning.boards_file import (
    MOST_BOARDS,
    BoardsFile,
    BoardsRecord,
    LinkRecord,
    TargetFigures,
    read_boards,
    read_target,
)
from hyps.runtime.cluster.planning.message_cost import rated_message_s
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, SharedLink
from hyps.runtime.errors import BoardsError
from hyps.runtime.suggestions import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFleet:
    """A fleet, with the multiply-adds a second of each class of boards, and the name of the class in step profiles."""

    fleet: Fleet
    macs_per_s: Mapping[str, float]
    profiled_as: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BothWays:
    """A link to the hub and from it."""

    up: NetworkLink
    down: NetworkLink

    def through(self, other: _BothWays) -> _BothWays:
        """Return this link followed by another: latencies add, the slower one bounds the bytes."""
        ups, downs = (self.up, other.up), (self.down, other.down)
        return _BothWays(up=_joined(*ups), down=_joined(*downs))


def load_fleet(path: Path) -> PlannedFleet:
    """Return the fleet that a boards file describes. Raises `BoardsError`, which names the entry and what is wrong."""
    content = read_boards(path)
    where = f"the boards file {str(path)!r}"
    links = {name: _link(record, f"{where}, link {name}") for name, record in content.links.items()}
    routers = {
        name: _named(links, record.link, f"{where}, router {name}", "link") for name, record in content.routers.items()
    }
    boards: list[Board] = []
    rates: dict[str, float] = {}
    pairs: dict[tuple[str, str], NetworkLink] = {}
    for record in content.boards:
        entry = f"{where}, board {record.name}"
        if record.name in rates:
            raise BoardsError(f"{where} has two entries for boards {record.name}", "give each its own name")
        own = _named(links, record.link, entry, "link")
        if record.router is not None:
            own = own.through(_named(routers, record.router, entry, "router"))
        figures = read_target(path.parent / record.target) if record.target else None
        rates[record.name] = _figure(
            record.speed, figures.conv_macs_per_s if figures else None, quantities.MACS_PER_S, entry, "speed"
        )
        boards += _boards(record, figures, entry, rates[record.name])
        if len(boards) > MOST_BOARDS:
            raise BoardsError(f"{where} has more than {MOST_BOARDS} boards", "plan for fewer")
        for name in record.names:
            pairs |= {(name, HUB): own.up, (HUB, name): own.down}
    names = [board.name for board in boards]
    if double := next((name for name in names if names.count(name) > 1 or name == HUB), None):
        raise BoardsError(f"{where} has a second board or hub {double}", "give each its own name")
    for pair in content.pairs:
        between = f"{where}, pair {pair.boards[0]} and {pair.boards[1]}"
        one, other = (_known(names, name, between) for name in pair.boards)
        own = _named(links, pair.link, between, "link")
        if one == other or (one, other) in pairs:
            raise BoardsError(f"{between} is no pair, or is there twice", "name two boards, once")
        pairs |= {(one, other): own.up, (other, one): own.down}
    power = content.hub.power
    fleet = Fleet(
        boards=tuple(boards),
        links=pairs,
        hub_watts=_figure(power, 0.0, quantities.WATTS, f"{where}, hub", "power", may_be_zero=True),
        shared_links=tuple(_shared(content, links, where)),
    )
    profiled_as = {record.name: record.profiled_as or record.name for record in content.boards}
    return PlannedFleet(fleet=fleet, macs_per_s=rates, profiled_as=profiled_as)


def _joined(one: NetworkLink, other: NetworkLink) -> NetworkLink:
    return NetworkLink(bytes_per_s=min(one.bytes_per_s, other.bytes_per_s), latency_s=one.latency_s + other.latency_s)


def _boards(record: BoardsRecord, figures: TargetFigures | None, entry: str, macs_per_s: float) -> list[Board]:
    memory = figures.memory_bytes - figures.reserved_bytes if figures else None
    storage = figures.storage_read_bytes_per_s if figures else None
    idle, busy = (figures.idle_milliwatts, figures.busy_milliwatts) if figures else (None, None)
    watts = [
        _figure(text, None if milli is None else milli / 1e3, quantities.WATTS, entry, field, may_be_zero=True)
        for text, milli, field in ((record.idle, idle, "idle"), (record.busy, busy, "busy"))
    ]
    if watts[1] < watts[0]:
        raise BoardsError(f"{entry} takes less power busy ({watts[1]:g} W) than idle ({watts[0]:g} W)", "exchange them")
    memory_bytes = int(_figure(record.memory, memory, quantities.BYTES, entry, "memory"))
    storage_bytes_per_s = _figure(record.storage, storage, quantities.BYTES_PER_S, entry, "storage")
    rated_s = figures.message_s if figures and figures.message_s else rated_message_s(macs_per_s)
    message_s = _figure(record.message, rated_s, quantities.SECONDS, entry, "message", may_be_zero=True)
    return [
        Board(
            name=name,
            board_class=record.name,
            memory_bytes=memory_bytes,
            storage_bytes_per_s=storage_bytes_per_s,
            idle_watts=watts[0],
            busy_watts=watts[1],
            message_s=message_s,
        )
        for name in record.names
    ]


def _figure(
    text: str | None,
    otherwise: float | None,
    units: Mapping[str, float],
    entry: str,
    field: str,
    *,
    may_be_zero: bool = False,
) -> float:
    """Return a figure of the file, or else of the target. Raises `BoardsError` if there is none, or it is wrong."""
    if text is None:
        if otherwise is None:
            raise BoardsError(
                f"{entry} has no {field}", f'write one, e.g. {field} = "{_EXAMPLES[field]}", or a target that has it'
            )
        return float(otherwise)
    try:
        return quantities.quantity(text, units, least=0.0 if may_be_zero else 1e-300)
    except ValueError as error:
        raise BoardsError(f"{entry}: {field} = {error}", f'write e.g. "{_EXAMPLES[field]}"') from None


_EXAMPLES = {
    "memory": "700 MB",
    "storage": "22 MB/s",
    "speed": "3.2 GMAC/s",
    "message": "1.2 ms",
    "idle": "1.4 W",
    "busy": "3.7 W",
    "power": "4 W",
    "bandwidth": "94 Mbit/s",
    "up": "10 Mbit/s",
    "down": "50 Mbit/s",
    "latency": "8.8 ms",
}


def _link(record: LinkRecord, entry: str) -> _BothWays:
    latency = _figure(record.latency, None, quantities.SECONDS, entry, "latency", may_be_zero=True)
    both = record.bandwidth
    if both is not None and (record.up is not None or record.down is not None):
        raise BoardsError(f"{entry} has a bandwidth and also up or down", "leave one out")
    if both is None and record.up is None and record.down is None:
        raise BoardsError(f"{entry} has no bandwidth", f'write one, e.g. bandwidth = "{_EXAMPLES["bandwidth"]}"')
    rates = [
        _figure(both or text, None, quantities.BYTES_PER_S, entry, "bandwidth" if both else field)
        for text, field in ((record.up, "up"), (record.down, "down"))
    ]
    up, down = (NetworkLink(bytes_per_s=rate, latency_s=latency) for rate in rates)
    return _BothWays(up=up, down=down)


def _named(known: Mapping[str, _BothWays], name: str, entry: str, kind: str) -> _BothWays:
    if name not in known:
        raise BoardsError(
            f"{entry} names {kind} {name!r}, which is not there", f"{did_you_mean(name, known)}add [{kind}s.{name}]"
        )
    return known[name]


def _known(names: list[str], name: str, entry: str) -> str:
    if name not in names:
        raise BoardsError(f"{entry}: there is no board {name!r}", f"{did_you_mean(name, names)}name boards of this file")
    return name


def _shared(content: BoardsFile, links: Mapping[str, _BothWays], where: str) -> list[SharedLink]:
    """Return the links that boards share: WLANs, the links of routers, the hub's own."""
    found = []
    by_link: dict[str, set[str]] = {}
    by_router: dict[str, set[str]] = {}
    for record in content.boards:
        by_link.setdefault(record.link, set()).update(record.names)
        if record.router is not None:
            by_router.setdefault(record.router, set()).update(record.names)
    for name, boards in by_link.items():
        if content.links[name].shared:
            found.append(_shared_link(f"link {name}", boards, links[name], duplex=False))
    for name, boards in by_router.items():
        router = content.routers[name]
        found.append(
            _shared_link(f"router {name}", boards, links[router.link], duplex=not content.links[router.link].shared)
        )
    if content.hub.bandwidth is not None:
        rate = _figure(content.hub.bandwidth, None, quantities.BYTES_PER_S, f"{where}, hub", "bandwidth")
        everyone = frozenset(name for record in content.boards for name in record.names)
        found.append(SharedLink(name="the hub's link", boards=everyone, bytes_per_s=rate))
    return found


def _shared_link(name: str, boards: set[str], both: _BothWays, *, duplex: bool) -> SharedLink:
    rate = min(both.up.bytes_per_s, both.down.bytes_per_s)
    return SharedLink(name=name, boards=frozenset(boards), bytes_per_s=rate, duplex=duplex)
