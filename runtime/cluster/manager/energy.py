"""Add up the energy of all boards of a cluster for one inference, static and dynamic apart (Hadidi, section 4.6).

The figures cover the last minute: the boards' watts, divided by the inferences that were answered meanwhile. The static part
is what the same boards take without work. A machine on which several programs run is counted once.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import BoardEnergy, Pulse, Text

if TYPE_CHECKING:
    from hyps.runtime.energy.board import BoardMeter

#: The seconds that the figures cover, and those between two samples.
_COVERED_S, _SAMPLE_S = 60.0, 1.0
#: The largest plausible power of one board in watts: a worker may claim anything.
_MOST_WATTS = 10_000.0
_Sample = TypeVar("_Sample")


class BoardPowerLine(Message, frozen=True, kw_only=True):
    """The power of one board over the last minute, its idle power, and the source of both.

    ``counted_with``: the board on the same machine whose figures hold this one's energy, too.
    """

    name: Text
    watts: float
    idle_watts: float
    estimated: bool
    source: Text
    counted_with: Text | None = None


class EnergyLine(Message, frozen=True, kw_only=True):
    """The energy of a cluster over the last ``seconds``, in which it ``answered`` jobs.

    The joules are those of one inference, on all boards that are known; None if none was answered. ``unknown`` are the
    boards without figures.
    """

    seconds: float
    answered: int
    watts: float
    idle_watts: float
    static_joules: float | None
    dynamic_joules: float | None
    boards: tuple[BoardPowerLine, ...]
    unknown: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBoard:
    """The manager's own board; the hub may run on it, too."""

    meter: BoardMeter
    machine: str
    has_hub: bool

    @property
    def name(self) -> str:
        """The name in the list of boards."""
        return "manager and hub" if self.has_hub else "manager"


class AnsweredCount(Protocol):
    """A count of answered jobs."""

    @property
    def total(self) -> int:
        """The jobs answered so far."""
        ...


class ClusterEnergy:
    """The energy reports of one manager's boards. Not thread-safe: use it on the manager's thread."""

    def __init__(self, answered: AnsweredCount, own: OwnBoard | None) -> None:
        self._answered, self._own = answered, own
        self._samples: dict[str, deque[tuple[float, BoardEnergy]]] = {}
        self._newest: dict[str, tuple[str, BoardEnergy]] = {}
        self._counts: deque[tuple[float, int]] = deque()

    def pulse(self, worker: str, pulse: Pulse) -> None:
        """Take what a worker's pulse says of its board's energy, and of the boards below it."""
        self.take(worker, pulse.session, pulse.energy)
        for name, energy in pulse.below.items():
            self.take(f"{worker}/{name}", pulse.session, energy)

    def take(self, name: str, session: str, energy: BoardEnergy | None) -> None:
        """Take what is known of a board's energy; a worker that was started again counts from 0."""
        before = self._newest.get(name)
        if energy is None:
            self.forget(name)
            return
        samples = self._samples.setdefault(name, deque())
        if before and (before[0] != session or energy.joules < before[1].joules or energy.seconds < before[1].seconds):
            samples.clear()
        self._newest[name] = session, energy
        _keep(samples, energy)

    def forget(self, name: str) -> None:
        """Forget a board."""
        self._samples.pop(name, None)
        self._newest.pop(name, None)

    def line(self, workers: Mapping[str, int]) -> EnergyLine | None:
        """Return the figures over these workers and the manager's board, or None if no board's are known.

        ``workers`` are the numbers of boards below each worker, 0 for one that computes itself.
        """
        own = {self._own.name} if self._own else set()
        for name in [name for name in self._newest if name.partition("/")[0] not in workers.keys() | own]:
            self.forget(name)
        self._look_at_own()
        _keep(self._counts, self._answered.total)
        boards = [line for name in self._newest if (line := self._board(name))]
        if not boards:
            return None
        boards = _merged(boards, {name: energy.machine for name, (_, energy) in self._newest.items()})
        watts, idle_watts = _sum(boards)
        seconds = self._counts[-1][0] - self._counts[0][0]
        answered = self._counts[-1][1] - self._counts[0][1]
        each_s = seconds / answered if answered else None
        known = {board.name for board in boards}
        return EnergyLine(
            seconds=round(seconds, 1),
            answered=answered,
            watts=watts,
            idle_watts=idle_watts,
            static_joules=None if each_s is None else idle_watts * each_s,
            dynamic_joules=None if each_s is None else (watts - idle_watts) * each_s,
            boards=tuple(boards),
            unknown=(
                *([] if self._own and self._own.name in known else ["manager"]),
                *([] if self._own and self._own.has_hub and self._own.name in known else ["hub"]),
                *(name for name in sorted(workers) if name not in known),
                *_unknown_below(workers, known),
            ),
        )

    def _look_at_own(self) -> None:
        if self._own and (state := self._own.meter.state()):
            energy = BoardEnergy(
                seconds=state.seconds,
                joules=state.joules,
                idle_watts=state.idle_watts,
                estimated=state.estimated,
                source=state.source[:200],
                machine=self._own.machine,
            )
            self.take(self._own.name, "", energy)

    def _board(self, name: str) -> BoardPowerLine | None:
        (_, first), (_, last) = self._samples[name][0], self._samples[name][-1]
        seconds = last.seconds - first.seconds
        if seconds <= 0 or (watts := (last.joules - first.joules) / seconds) > _MOST_WATTS:
            return None
        idle = min(last.idle_watts, _MOST_WATTS)
        return BoardPowerLine(name=name, watts=watts, idle_watts=idle, estimated=last.estimated, source=last.source)


def _unknown_below(workers: Mapping[str, int], known: Iterable[str]) -> Iterator[str]:
    """Yield in words how many boards of each group have no figures."""
    counts = Counter(name.partition("/")[0] for name in known if "/" in name)
    for name, boards in sorted(workers.items()):
        if (missing := boards - counts[name]) > 0:
            yield f"{missing} board{'' if missing == 1 else 's'} below {name}"[:500]


def _keep(samples: deque[tuple[float, _Sample]], value: _Sample) -> None:
    """Add a sample if a second has passed since the last; drop samples that are too old, except the newest of them."""
    now = time.monotonic()
    if not samples or now >= samples[-1][0] + _SAMPLE_S:
        samples.append((now, value))
    while len(samples) > 2 and samples[1][0] <= now - _COVERED_S:
        samples.popleft()


def _merged(boards: Sequence[BoardPowerLine], machines: dict[str, str]) -> list[BoardPowerLine]:
    """Return the boards; of several on one machine, mark those whose energy is part of another's figures."""
    by_machine: defaultdict[str, list[BoardPowerLine]] = defaultdict(list)
    for board in boards:
        by_machine[machines[board.name]].append(board)
    merged: list[BoardPowerLine] = []
    for together in by_machine.values():
        first, *others = sorted(together, key=lambda board: (board.estimated, -board.watts))
        merged += [first, *(msgspec.structs.replace(board, counted_with=first.name) for board in others)]
    return merged


def _sum(boards: Sequence[BoardPowerLine]) -> tuple[float, float]:
    """Return the watts and the idle watts of all machines.

    A measured machine's watts include all that runs on it. An estimate covers one program, so the others add what they take
    above their idle power.
    """
    estimated = {board.name for board in boards if board.estimated}
    watts = idle_watts = 0.0
    for board in boards:
        if board.counted_with is None:
            watts, idle_watts = watts + board.watts, idle_watts + board.idle_watts
        elif board.counted_with in estimated:
            watts += max(0.0, board.watts - board.idle_watts)
    return watts, idle_watts
