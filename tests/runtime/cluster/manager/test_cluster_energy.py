"""Test the energy of an inference over all boards: what is added up, what is counted once, and what is not believed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from hyps.runtime.cluster.manager import energy as module
from hyps.runtime.cluster.manager.energy import ClusterEnergy, EnergyLine, OwnBoard
from hyps.runtime.cluster.protocol.frames import Rejection
from hyps.runtime.cluster.protocol.messages import BoardEnergy, Pulse, decode_worker_message, encode_message
from hyps.runtime.energy.board import BoardState

SESSION = "1" * 32
MACHINES = {"w0": "0" * 16, "w1": "1" * 16, "w2": "1" * 16}


class Clock:
    """A clock that a test sets, in place of the module's ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def energy(name: str, seconds: float, joules: float, *, idle: float = 1.0, estimated: bool = False) -> BoardEnergy:
    return BoardEnergy(
        seconds=seconds,
        joules=joules,
        idle_watts=idle,
        estimated=estimated,
        source=f"sensor of {name}",
        machine=MACHINES[name],
    )


class Board:
    """A `ClusterEnergy` with boards of constant power, and a count of answered jobs."""

    def __init__(self, clock: Clock, own: Any = None) -> None:
        self.clock, self.count = clock, SimpleNamespace(total=0)
        self.energy = ClusterEnergy(self.count, own)

    def run(self, seconds: int, answered_per_s: int, *boards: tuple[str, float, bool]) -> EnergyLine | None:
        """Let time pass, with pulses of boards (name, watts, whether they are estimated); return the line at the end."""
        line = None
        for second in range(seconds):
            for name, watts, estimated in boards:
                self.energy.take(name, SESSION, energy(name, second, watts * second, estimated=estimated))
            line = self.energy.line(dict.fromkeys((name for name, _, _ in boards), 0))
            self.clock.now += 1
            self.count.total += answered_per_s
        return line


def test_two_boards(clock: Clock) -> None:
    """3 W and 4 W, each 1 W of it idle, and two answers a second."""
    line = Board(clock).run(31, 2, ("w0", 3.0, False), ("w1", 4.0, False))
    assert line
    assert (line.seconds, line.answered) == (30, 60)
    assert (line.watts, line.idle_watts) == pytest.approx((7, 2))
    assert (line.static_joules, line.dynamic_joules) == pytest.approx((1.0, 2.5))
    assert [(board.name, board.source) for board in line.boards] == [("w0", "sensor of w0"), ("w1", "sensor of w1")]
    assert line.unknown == ("manager", "hub")


def test_nothing_is_answered(clock: Clock) -> None:
    line = Board(clock).run(10, 0, ("w0", 3.0, False))
    assert line
    assert (line.answered, line.static_joules, line.dynamic_joules) == (0, None, None)
    assert line.watts == pytest.approx(3)


def test_only_the_last_minute_counts(clock: Clock) -> None:
    board = Board(clock)
    board.run(100, 5, ("w0", 9.0, False))
    clock.now += 1
    for second in range(70):
        board.energy.take("w0", SESSION, energy("w0", 100 + second, 1000 + 2.0 * second))
        line = board.energy.line({"w0": 0})
        clock.now += 1
        board.count.total += 1
    assert line
    assert (line.seconds, line.answered) == pytest.approx((60, 60))
    assert line.watts == pytest.approx(2)


@pytest.mark.parametrize(("estimated", "watts", "idle"), [(False, 4.0, 1.0), (True, 4.0 + 1.5, 1.0)])
def test_one_machine_is_counted_once(clock: Clock, estimated: bool, watts: float, idle: float) -> None:
    """A sensor shows all programs of the machine; an estimate is of one program, and the other's computing is added."""
    line = Board(clock).run(10, 1, ("w1", 4.0, estimated), ("w2", 2.5, estimated))
    assert line
    assert (line.watts, line.idle_watts) == pytest.approx((watts, idle))
    assert {board.name: board.counted_with for board in line.boards} == {"w1": None, "w2": "w1"}


def test_the_managers_board_and_the_hub(clock: Clock) -> None:
    seconds = iter(range(100))

    def state() -> BoardState:
        second = next(seconds)
        return BoardState(seconds=second, joules=5.0 * second, idle_watts=4.0, estimated=False, source="RAPL")

    meter: Any = SimpleNamespace(state=state)
    own = OwnBoard(meter=meter, machine="f" * 16, has_hub=True)
    line = Board(clock, own).run(10, 1, ("w0", 3.0, False))
    assert line
    assert (line.watts, line.idle_watts) == pytest.approx((8, 5))
    assert not line.unknown
    assert [board.name for board in line.boards] == ["w0", "manager and hub"]


def test_boards_without_figures_are_named(clock: Clock) -> None:
    board = Board(clock)
    board.run(5, 1, ("w0", 3.0, False))
    board.energy.take("w1", SESSION, None)
    line = board.energy.line({"w0": 0, "w1": 3})
    assert line
    assert line.unknown == ("manager", "hub", "w1", "3 boards below w1")
    assert board.energy.line({}) is None, "a board that is gone has no power"


def test_the_boards_of_a_group(clock: Clock) -> None:
    """The group's own machine takes 3 W, one of its two boards 4 W; of the other nothing is known."""
    board = Board(clock)
    for second in range(11):
        below = {"a": energy("w1", second, 4.0 * second)}
        pulse = Pulse(session=SESSION, resident_bytes=1, queue=0, energy=energy("w0", second, 3.0 * second), below=below)
        board.energy.pulse("g", pulse)
        line = board.energy.line({"g": 2})
        clock.now += 1
        board.count.total += 1
    assert line
    assert line.watts == pytest.approx(7)
    assert [each.name for each in line.boards] == ["g", "g/a"]
    assert line.unknown == ("manager", "hub", "1 board below g")
    assert board.energy.line({}) is None


def test_a_worker_that_starts_again_counts_from_nothing(clock: Clock) -> None:
    board = Board(clock)
    board.run(10, 1, ("w0", 3.0, False))
    for second in range(10):
        board.energy.take("w0", "2" * 32, energy("w0", second, 2.0 * second))
        line = board.energy.line({"w0": 0})
        clock.now += 1
    assert line
    assert line.watts == pytest.approx(2)


def test_what_no_board_takes_is_not_believed(clock: Clock) -> None:
    assert Board(clock).run(10, 1, ("w0", 1e6, False)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"joules": -1},
        {"seconds": -1},
        {"joules": 1e300},
        {"idle_watts": -0.1},
        {"idle_watts": 1e9},
        {"joules": "5"},
        {"source": "x" * 201},
        {"machine": "0"},
        {"machine": "G" * 16},
        {"more": 1},
    ],
)
def test_a_forged_report_is_rejected(change: dict[str, object]) -> None:
    fields = {
        "seconds": 1.0,
        "joules": 1.0,
        "idle_watts": 1.0,
        "estimated": False,
        "source": "x",
        "machine": "0" * 16,
    } | change
    pulse = {"type": "pulse", "session": SESSION, "resident_bytes": 1, "queue": 0, "energy": fields}
    with pytest.raises(Rejection, match="bad message"):
        decode_worker_message(json.dumps(pulse).encode())


def test_a_pulse_without_energy_is_as_before() -> None:
    """An older manager refuses unknown fields."""
    encoded = encode_message(Pulse(session=SESSION, resident_bytes=1, queue=0))
    assert encoded == b'{"type":"pulse","session":"' + SESSION.encode() + b'","resident_bytes":1,"queue":0}'
    with_energy = Pulse(session=SESSION, resident_bytes=1, queue=0, energy=energy("w0", 1, 1.5))
    assert decode_worker_message(encode_message(with_energy)) == with_energy
