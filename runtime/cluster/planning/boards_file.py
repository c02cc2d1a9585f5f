"""Read a boards file (TOML), which describes a cluster that need not exist: boards, links, routers, the hub.

    [hub]
    power = "4 W"                   # optional: of the hub and the manager
    bandwidth = "940 Mbit/s"        # optional: what all boards together send to, or get from, the hub

    [links.lan]                     # by any name
    bandwidth = "94 Mbit/s"         # or up and down, to and from the hub
    latency = "0.3 ms"

    [links.wlan]
    bandwidth = "24 Mbit/s"
    latency = "8.8 ms"
    shared = true                   # its boards share the bandwidth, both directions together

    [[boards]]
    name = "pi3"                    # with a count: pi3-1, pi3-2, ...
    count = 4
    target = "my-pi3.toml"          # a file of 'hyps-run calibrate', next to this one; or, and before it, figures:
    memory = "700 MB"               # for the worker's process
    storage = "22 MB/s"
    speed = "3.2 GMAC/s"            # multiply-adds a second
    message = "1.2 ms"              # optional: what it works for a message that it receives or sends; else the target's
                                    # message_us, or by its speed
    class = "pi3b"                  # optional: what step profiles call such boards, if not by the entry's name
    idle = "1.4 W"
    busy = "3.7 W"                  # without these two: the target's idle_milliwatts and busy_milliwatts
    link = "lan"
    router = "attic"                # optional

    [routers.attic]                 # boards behind it reach the hub through its link, which they share
    link = "wan"

    [[pairs]]                       # two boards that reach each other without the hub
    boards = ["pi3-1", "pi3-2"]
    link = "lan"

`hyps.runtime.cluster.planning.fleets` makes a fleet of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from hyps.runtime.device.link_rates import MAX_LINK_BYTES_PER_S, LinkRates
from hyps.runtime.errors import BoardsError
from hyps.runtime.profiling.board_facts import BoardClass

#: The most bytes of a boards file or a target file, and the most boards.
_LARGEST_BYTES, MOST_BOARDS = 1 << 20, 2000

#: The sections with an entry for each [[...]], and how the others are written.
_LISTS = frozenset({"boards", "pairs"})
_TABLES = {"hub": "[hub]", "links": "[links.NAME]", "routers": "[routers.NAME]"}

_Content = TypeVar("_Content")

EntryName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\Z", max_length=64)]
Quantity = Annotated[str, Meta(min_length=1, max_length=64)]
NumberOfBoards = Annotated[int, Meta(ge=1, le=MOST_BOARDS)]
MostBoards = Annotated[tuple["BoardsRecord", ...], Meta(min_length=1, max_length=MOST_BOARDS)]


class FileSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a boards file's sections."""


class LinkRecord(FileSection, frozen=True, kw_only=True):
    """A kind of link: its ``bandwidth`` in both directions, or ``up`` to the hub and ``down`` from it, and its latency.

    ``shared``: all boards on it share its bandwidth, both directions together, as in a WLAN.
    """

    latency: Quantity
    bandwidth: Quantity | None = None
    up: Quantity | None = None
    down: Quantity | None = None
    shared: bool = False


class BoardsRecord(FileSection, frozen=True, kw_only=True):
    """Some equal boards: a target file, or figures, which come before the target's.

    ``class`` is what step profiles call such boards, if not by the entry's name.
    """

    name: EntryName
    link: str
    count: NumberOfBoards | None = None
    target: Annotated[str, Meta(max_length=4096)] | None = None
    memory: Quantity | None = None
    storage: Quantity | None = None
    speed: Quantity | None = None
    message: Quantity | None = None
    idle: Quantity | None = None
    busy: Quantity | None = None
    profiled_as: BoardClass | None = msgspec.field(default=None, name="class")
    router: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the boards."""
        return (self.name,) if self.count is None else tuple(f"{self.name}-{number + 1}" for number in range(self.count))


class RouterRecord(FileSection, frozen=True, kw_only=True):
    """A router, and its link to the hub."""

    link: str


class PairRecord(FileSection, frozen=True, kw_only=True):
    """Two boards with a link of their own."""

    boards: Annotated[tuple[str, ...], Meta(min_length=2, max_length=2)]
    link: str


class HubRecord(FileSection, frozen=True, kw_only=True):
    """The hub: its power with the manager's, and the bandwidth of its own link, in each direction."""

    power: Quantity | None = None
    bandwidth: Quantity | None = None


class BoardsFile(FileSection, frozen=True, kw_only=True):
    """A boards file's content."""

    boards: MostBoards
    links: dict[str, LinkRecord]
    hub: HubRecord = HubRecord()
    routers: dict[str, RouterRecord] = {}
    pairs: Annotated[tuple[PairRecord, ...], Meta(max_length=100_000)] = ()


class TargetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that a cluster needs of a target file (`hyps.runtime.calibration.target_file`); others are not read."""

    memory_bytes: Annotated[int, Meta(gt=0)]
    reserved_bytes: Annotated[int, Meta(ge=0)]
    storage_read_bytes_per_s: Annotated[int, Meta(gt=0)]
    conv_macs_per_s: Annotated[int, Meta(gt=0)] | None = None
    idle_milliwatts: Annotated[int, Meta(ge=0)] | None = None
    busy_milliwatts: Annotated[int, Meta(ge=0)] | None = None
    network_up_bytes_per_s: Annotated[int, Meta(ge=1, le=MAX_LINK_BYTES_PER_S)] | None = None
    network_down_bytes_per_s: Annotated[int, Meta(ge=1, le=MAX_LINK_BYTES_PER_S)] | None = None
    network_latency_us: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    message_us: Annotated[int, Meta(ge=1, le=10**12)] | None = None

    @property
    def message_s(self) -> float | None:
        """What the board works for a message, in seconds; None if it is not known."""
        return None if self.message_us is None else self.message_us / 1e6

    @property
    def link(self) -> LinkRates | None:
        """The board's link to its hub, None if it is not known."""
        up, down, latency_us = self.network_up_bytes_per_s, self.network_down_bytes_per_s, self.network_latency_us
        if up is None or down is None or latency_us is None:
            return None
        return LinkRates(up_bytes_per_s=up, down_bytes_per_s=down, latency_s=latency_us / 1e6)


def read_boards(path: Path) -> BoardsFile:
    """Return a boards file's content, whose names and quantities are not checked yet. Raises `BoardsError`."""
    return _converted(path, "boards file", BoardsFile)


def read_target(path: Path) -> TargetFigures:
    """Return a target file's figures. Raises `BoardsError`."""
    if path.suffix != ".toml":
        raise BoardsError(
            f"target {path.name!r} is no file that ends in .toml",
            f"write a built-in target to one: hypsc targets show {path.name} > {path.name}.toml",
        )
    return _converted(path, "target file", TargetFigures)


def _check_forms(parsed: Mapping[str, object], path: str) -> None:
    """Raise `BoardsError` for a section that is one table where there may be several, or the other way round."""
    for name, value in parsed.items():
        if name in _LISTS and isinstance(value, Mapping):
            raise BoardsError(f"the boards file {path!r} has {name} as one table", f"write [[{name}]] above each entry")
        if name in _TABLES and isinstance(value, list):
            raise BoardsError(f"the boards file {path!r} has {name} as a list", f"write {_TABLES[name]} instead")


def _converted(path: Path, kind: str, content: type[_Content]) -> _Content:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BoardsError(f"cannot read the {kind} {str(path)!r}: {reason}") from None
    if len(data) > _LARGEST_BYTES:
        raise BoardsError(f"the {kind} {str(path)!r} is over 1 MiB", "check the path")
    try:
        parsed: Mapping[str, object] = tomllib.loads(data.decode("utf-8").replace("\r\n", "\n"))
        if content is BoardsFile:
            _check_forms(parsed, str(path))
        return msgspec.convert(parsed, content, strict=True)
    except tomllib.TOMLDecodeError as error:
        raise BoardsError(f"the {kind} {str(path)!r} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise BoardsError(f"the {kind} {str(path)!r} is not UTF-8 text", "save it as UTF-8") from None
    except RecursionError:
        raise BoardsError(f"the {kind} {str(path)!r} nests too deeply") from None
    except ValueError as error:
        raise BoardsError(f"the {kind} {str(path)!r}: {error}") from None
