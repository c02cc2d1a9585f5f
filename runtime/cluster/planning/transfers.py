"""Find the transfers of a placement: the bytes that each board receives and sends over each link for an input.

A tensor goes to the hub once, and from there to each board that reads it, unless there is a link for the pair of boards.
Replicas get inputs in proportion to the speed at which they work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hyps.runtime.cluster.planning.crossing import Crossing, TensorUse, crossing, tensor_uses
from hyps.runtime.cluster.planning.holding import Holding, hold, hold_together
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, Sharing, Stages, Workload
from hyps.runtime.errors import BudgetError, InputError

StagePart = TypeVar("StagePart")
#: The least seconds of anything, so that a rate is finite.
LEAST_S = 1e-12
#: The most costs that are remembered.
_REMEMBERED = 20_000


@dataclass(slots=True, kw_only=True)
class Holder:
    """A board in a stage, its steps, its part of the inputs (``mix``), and the bytes on its links for one of its inputs."""

    stage: int
    sharing: Sharing
    board: Board
    steps: Sequence[int]
    crossing: Crossing
    holding: Holding
    mix: float = 1.0
    received: dict[str, float] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)

    def receive(self, sender: str, nbytes: float) -> None:
        """Count bytes from a board or the hub."""
        self.received[sender] = self.received.get(sender, 0.0) + nbytes

    def send(self, receiver: str, nbytes: float) -> None:
        """Count bytes to a board or the hub."""
        self.sent[receiver] = self.sent.get(receiver, 0.0) + nbytes


def link(fleet: Fleet, sender: str, receiver: str) -> NetworkLink:
    """Return a link. Raises `InputError` if there is none."""
    found = fleet.links.get((sender, receiver))
    if found is None:
        raise InputError(f"there is no link from {sender} to {receiver}", "give every board a link to the hub")
    return found


class KnownCosts:
    """What a workload's steps cost and what crosses, remembered for a caller that evaluates many placements."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.uses: Mapping[str, TensorUse] = tensor_uses(workload)
        self._crossings: dict[tuple[int, ...], Crossing] = {}
        self._holdings: dict[object, Holding] = {}

    def crossing(self, steps: Sequence[int]) -> Crossing:
        """Return the tensors that cross into and out of a set of steps."""
        key = _key(steps)
        if key not in self._crossings:
            if len(self._crossings) > _REMEMBERED:
                self._crossings.clear()
            self._crossings[key] = crossing(self.workload, self.uses, steps)
        return self._crossings[key]

    def holding(self, steps: Sequence[int], board: Board) -> Holding:
        """Return what steps cost a board. Raises `BudgetError` if one does not fit."""
        key = (_key(steps), board.board_class, board.memory_bytes, board.storage_bytes_per_s, board.message_s)
        if key not in self._holdings:
            if len(self._holdings) > _REMEMBERED:
                self._holdings.clear()
            self._holdings[key] = hold(self.workload, self.uses, steps, board)
        return self._holdings[key]


def _key(steps: Sequence[int]) -> tuple[int, ...]:
    """Return a short value that tells runs and shares apart: a run's ends, a share's numbers."""
    return (-1, steps.start, steps.stop) if isinstance(steps, range) else tuple(steps)


def holders(fleet: Fleet, stages: Stages, known: KnownCosts) -> list[Holder]:
    """Return the boards of all stages with their transfers.

    Raises `BudgetError` if a step does not fit its board, or the board may not share as it does.
    """
    boards = {board.name: board for board in fleet.boards}
    _check_rights(boards, stages)
    found: list[Holder] = []
    for number, stage in enumerate(stages):
        shares: Sequence[Sequence[int]] = stage.shares if stage.sharing == "shards" else [stage.steps] * len(stage.boards)
        made = [
            Holder(
                stage=number,
                sharing=stage.sharing,
                board=boards[name],
                steps=steps,
                crossing=known.crossing(steps),
                holding=known.holding(steps, boards[name]),
            )
            for name, steps in zip(stage.boards, shares, strict=True)
        ]
        if stage.sharing == "replicas":
            rates = [1 / max(holder.holding.service_s, LEAST_S) for holder in made]
            for holder, rate in zip(made, rates, strict=True):
                holder.mix = rate / sum(rates)
        found += made
    _hold_together(found, known)
    _count(fleet, found, known.uses)
    return found


def _check_rights(boards: Mapping[str, Board], stages: Stages) -> None:
    """Raise `BudgetError` if a board shares steps or inputs that may not."""
    counts = Counter(name for stage in stages for name in stage.boards)
    for stage in stages:
        for board in (boards[name] for name in stage.boards):
            if stage.sharing == "replicas" and not board.shares_inputs:
                raise BudgetError(f"{board.name} shares no inputs with others")
            if board.one_run and (stage.sharing in ("replicas", "shards") or counts[board.name] > 1):
                raise BudgetError(f"{board.name} has one run of steps, which no other has")


def _hold_together(found: Sequence[Holder], known: KnownCosts) -> None:
    """Have the boards of several stages hold all their steps in one memory."""
    for parts in several_stages(found, lambda holder: holder.board.name):
        holdings = hold_together(known.workload, known.uses, [holder.steps for holder in parts], parts[0].board)
        for holder, holding in zip(parts, holdings, strict=True):
            holder.holding = holding


def several_stages(found: Iterable[StagePart], board: Callable[[StagePart], str]) -> list[list[StagePart]]:
    """Return the parts of each board that has more than one, in the order of its stages."""
    by_board: dict[str, list[StagePart]] = {}
    for part in found:
        by_board.setdefault(board(part), []).append(part)
    return [parts for parts in by_board.values() if len(parts) > 1]


def _count(fleet: Fleet, found: Sequence[Holder], uses: Mapping[str, TensorUse]) -> None:
    """Count the bytes of every tensor on its way from the holders that make it to those that read it."""
    makers: dict[str, list[Holder]] = {}
    readers: dict[str, list[Holder]] = {}
    for holder in found:
        for name in holder.crossing.outputs:
            makers.setdefault(name, []).append(holder)
        for name in holder.crossing.inputs:
            readers.setdefault(name, []).append(holder)
    has_pairs = any(HUB not in pair for pair in fleet.links)
    for name, reading in readers.items():
        for reader in reading:
            if name not in makers or not has_pairs:
                reader.receive(HUB, uses[name].nbytes)
                continue
            for maker in makers[name]:
                direct = (maker.board.name, reader.board.name) in fleet.links
                reader.receive(maker.board.name if direct else HUB, maker.mix * uses[name].nbytes)
                if direct:
                    maker.send(reader.board.name, reader.mix * uses[name].nbytes)
    for name, making in makers.items():
        for maker in making:
            part = 1.0
            if has_pairs and not uses[name].is_output:
                part = _hub_part(fleet, maker, readers.get(name, ()))
            if part > 0:
                maker.send(HUB, part * uses[name].nbytes)


def _hub_part(fleet: Fleet, maker: Holder, readers: Iterable[Holder]) -> float:
    """Return the part of the inputs for which a tensor goes to the hub: that whose reader has no link of its own."""
    parts: dict[int, float] = {}
    for reader in readers:
        if (maker.board.name, reader.board.name) not in fleet.links:
            parts[reader.stage] = min(1.0, parts.get(reader.stage, 0.0) + reader.mix)
    return max(parts.values(), default=0.0)
