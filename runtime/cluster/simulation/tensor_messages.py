"""Find the messages that carry tensors from a station to those that read them, and the links that each message takes.

Where two boards have a link of their own, a message takes that. Else tensors go to the hub in one message, each once, and
from there to each board that reads some of them. A board sends one message after another, and receives one after another,
whichever links they take. Shared links carry one message after another, too, in each direction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hyps.runtime.cluster.planning.problem import HUB, Fleet, Workload
from hyps.runtime.cluster.planning.transfers import link

#: What carries one message at a time: the kind ("out", "in" or a shared link's name and direction), and whose it is.
Carrier = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHop:
    """A part of a message's way: what carries it, at which rate, and the seconds until the first byte arrives.

    ``pair`` is the link that the bytes count for, once on a way.
    """

    carrier: Carrier
    bytes_per_s: float
    latency_s: float = 0.0
    pair: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMessage:
    """Tensors on their way to a station of a stage, or to the hub, which sends ``onward`` what others read.

    ``leaves``: outputs of the network are among them.
    """

    nbytes: int
    hops: tuple[LinkHop, ...]
    stage: int = 0
    number: int = 0
    onward: tuple[TensorMessage, ...] = ()
    to_hub: bool = False
    leaves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A station that reads tensors of one message; None for ``board`` if they are outputs, which the hub takes."""

    stage: int
    number: int
    board: str | None
    tensors: frozenset[str]


def hops(fleet: Fleet, sender: str, receiver: str) -> tuple[LinkHop, ...]:
    """Return the way from a board or the hub to another over their link. Raises `InputError` if there is none."""
    found = link(fleet, sender, receiver)
    pair = (sender, receiver)
    carriers: list[tuple[Carrier, float]] = []
    if sender != HUB:
        carriers.append((("out", sender), found.bytes_per_s))
    for shared in fleet.shared_links:
        if shared.boards.issuperset(pair):
            continue
        for board, direction in ((sender, "sent"), (receiver, "received")):
            if board in shared.boards:
                carriers.append(((direction if shared.duplex else "both", shared.name), shared.bytes_per_s))
    if receiver != HUB:
        carriers.append((("in", receiver), found.bytes_per_s))
    last = len(carriers) - 1
    return tuple(
        LinkHop(
            carrier=carrier,
            bytes_per_s=rate,
            latency_s=found.latency_s if number == last else 0.0,
            pair=pair if number == last else None,
        )
        for number, (carrier, rate) in enumerate(carriers)
    )


def messages(workload: Workload, fleet: Fleet, sender: str, readers: Iterable[Reader]) -> tuple[TensorMessage, ...]:
    """Return the messages that bring each reader its tensors from a board, or from the hub."""
    found: list[TensorMessage] = []
    by_hub: list[Reader] = []
    for reader in readers:
        if reader.board is not None and (sender == HUB or (sender, reader.board) in fleet.links):
            found.append(_to_reader(workload, fleet, sender, reader))
        else:
            by_hub.append(reader)
    if by_hub:
        names = frozenset[str]().union(*(reader.tensors for reader in by_hub))
        onward = [_to_reader(workload, fleet, HUB, reader) for reader in by_hub if reader.board is not None]
        leaves = any(reader.board is None for reader in by_hub)
        way = hops(fleet, sender, HUB)
        size = _nbytes(workload, names)
        found.append(TensorMessage(nbytes=size, hops=way, to_hub=True, onward=tuple(onward), leaves=leaves))
    return tuple(found)


def _to_reader(workload: Workload, fleet: Fleet, sender: str, reader: Reader) -> TensorMessage:
    assert reader.board is not None
    way = hops(fleet, sender, reader.board)
    return TensorMessage(nbytes=_nbytes(workload, reader.tensors), hops=way, stage=reader.stage, number=reader.number)


def _nbytes(workload: Workload, names: Iterable[str]) -> int:
    return sum(workload.tensor_bytes[name] for name in names)
