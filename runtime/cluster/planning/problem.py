"""Define a placement problem: steps with their costs, boards, the links between them, and a placement as data.

A *stage* is a run of consecutive steps on one board, on several boards that deal inputs out among themselves (data-parallel
replicas), or on several boards that each compute some of its steps at the same time (shards side by side). *Copies* are on
several boards that each compute every input; no planner makes them, as they are for redundancy. A share's steps run in order
and may need each other, as those of a branch do; they need nothing of another share. A board may be in several stages, so
that it runs what comes before branches, one of them, and what comes after. Boards of a
*class* are the same: their speeds and their memory. All figures are in SI units: seconds, bytes, watts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Sharing = Literal["alone", "replicas", "shards", "copies"]
#: The name of the hub, of the board that manages, and of where inputs come from and outputs go, in `Fleet.links`.
HUB = "hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedStep:
    """One step, as a planner sees it.

    ``seconds`` are those of the computation with all weights in memory, by board class. ``working_bytes``
    are what the process takes besides its weights while the step runs. ``inputs`` and ``outputs`` are names of tensors.
    """

    name: str
    seconds: Mapping[str, float]
    weight_bytes: int
    working_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The steps of a network in order, the bytes of each tensor by name, and the network's inputs and outputs.

    ``sessions_bytes`` are what all sessions of a board's steps take together, if they stay open.
    """

    steps: tuple[PlacedStep, ...]
    tensor_bytes: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sessions_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One board: its class, the memory for its process, its storage, and its power without and with work.

    ``message_s`` is what it works for a message that it receives or sends (`message_cost`); 0 leaves that out.
    ``shares_inputs``: it may be one of several replicas. ``one_run``: it may have one run of steps, which no other has.
    """

    name: str
    board_class: str
    memory_bytes: int
    storage_bytes_per_s: float
    idle_watts: float
    busy_watts: float
    message_s: float = 0.0
    shares_inputs: bool = True
    one_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLink:
    """One direction of a connection: bytes a second, and the seconds until the first byte arrives."""

    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLink:
    """A link that several boards share: a router's to the hub, the hub's own, or the air of a WLAN.

    ``bytes_per_s`` is for both directions together, or for each if it is ``duplex``. It carries what its boards send and
    receive, except what they send each other by links of their own.
    """

    name: str
    boards: frozenset[str]
    bytes_per_s: float
    duplex: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The boards, and the links between them.

    ``links`` are by (from, to), each a board's name or `HUB`. Tensors between two boards pass the hub, unless there is a
    link for the pair. ``hub_watts`` is the power of the hub and the manager.
    """

    boards: tuple[Board, ...]
    links: Mapping[tuple[str, str], NetworkLink]
    hub_watts: float = 0.0
    shared_links: tuple[SharedLink, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStage:
    """A run of steps, and the boards that hold it.

    With ``sharing`` "shards", ``shares`` are the steps (their numbers) of each board, in the order of ``boards``. ``reason``
    says in words why.
    """

    steps: range
    boards: tuple[str, ...]
    sharing: Sharing = "alone"
    shares: tuple[tuple[int, ...], ...] = field(default=())
    reason: str = ""


#: A placement: stages in the order of the steps, which together hold each step once.
Stages = tuple[PipelineStage, ...]


def used_fleet(fleet: Fleet, stages: Stages) -> Fleet:
    """Return the fleet without the boards that hold nothing: they are switched off, and take no energy."""
    names = {name for stage in stages for name in stage.boards}
    return Fleet(
        boards=tuple(board for board in fleet.boards if board.name in names),
        links=fleet.links,
        hub_watts=fleet.hub_watts,
        shared_links=fleet.shared_links,
    )
