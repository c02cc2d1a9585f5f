"""Group the boards that no planner needs to tell apart, and relax a fleet to one that has such groups alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink
from hyps.runtime.cluster.planning.transfers import link


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardGroup:
    """Boards with the same class, memory, storage, power, rights to share, and links to and from the hub."""

    boards: tuple[Board, ...]
    up: NetworkLink
    down: NetworkLink

    @property
    def sample(self) -> Board:
        """One of the boards."""
        return self.boards[0]


def is_star(fleet: Fleet) -> bool:
    """Return whether tensors pass the hub alone, over links that no two boards share."""
    return not fleet.shared_links and all(HUB in pair for pair in fleet.links)


def relaxed_star(fleet: Fleet) -> Fleet:
    """Return a star on which no placement takes longer than on the fleet: for lower bounds.

    It has no shared links. A board with links to others receives all by its best link, sends in no time, and handles
    messages in none: what it sends directly is packed while it arrives.
    """
    best = {pair: each for pair, each in fleet.links.items() if HUB in pair}
    for (sender, receiver), pair in fleet.links.items():
        if HUB in (sender, receiver):
            continue
        down = best[HUB, receiver]
        best[HUB, receiver] = NetworkLink(
            bytes_per_s=max(down.bytes_per_s, pair.bytes_per_s), latency_s=min(down.latency_s, pair.latency_s)
        )
        best[sender, HUB] = NetworkLink(bytes_per_s=np.inf, latency_s=0.0)
    paired = {name for pair in fleet.links if HUB not in pair for name in pair}
    boards = tuple(replace(board, message_s=0.0) if board.name in paired else board for board in fleet.boards)
    return Fleet(boards=boards, links=best, hub_watts=fleet.hub_watts)


def board_groups(fleet: Fleet) -> tuple[BoardGroup, ...]:
    """Return the groups of a fleet's boards, in the order of their first boards."""
    found: dict[object, list[Board]] = {}
    for board in fleet.boards:
        figures = replace(board, name="")
        up, down = link(fleet, board.name, HUB), link(fleet, HUB, board.name)
        found.setdefault((figures, up, down), []).append(board)
    return tuple(
        BoardGroup(boards=tuple(boards), up=link(fleet, boards[0].name, HUB), down=link(fleet, HUB, boards[0].name))
        for boards in found.values()
    )
