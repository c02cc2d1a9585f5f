"""Test how a worker follows its board's energy: the idle power that it finds, and a reader that fails."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from hyps.runtime.energy.board import BoardMeter, board_meter, machine_number
from hyps.runtime.energy.choice import OpenedReader
from hyps.runtime.energy.estimate import PowerFigures
from tests.runtime.energy.test_measuring import MadeUpReader
from tests.waiting import wait_for

POWER = PowerFigures(idle_watts=1.4, busy_watts=3.4, cores=4, error_watts=None, source="target rpi3b")


def test_idle_power_is_the_least_average() -> None:
    """A board that takes 2 W after 9 W: nothing is known before five seconds have passed."""
    with closing(BoardMeter(OpenedReader(reader=MadeUpReader(*[9.0] * 4, 2.0, counts_joules=False)))) as meter:
        assert meter.state() is None
        wait_for("five seconds", meter.state)
        first = meter.state()
        assert first
        wait_for("less", lambda: (state := meter.state()) and state.idle_watts < first.idle_watts)
        last = meter.state()
    assert last
    assert 2 <= last.idle_watts < 2.1 < first.idle_watts < 9
    assert (last.estimated, last.source) == (False, "made up")
    assert last.joules > first.joules > 0
    assert last.seconds >= 10


def test_an_estimate_begins_when_the_power_is_known() -> None:
    with closing(BoardMeter(None)) as meter:
        assert meter.state() is None
        meter.estimate_by(POWER)
        state = meter.state()
        assert state
        assert (state.estimated, state.idle_watts, state.source) == (True, 1.4, "estimated from target rpi3b")
        meter.estimate_by(PowerFigures(idle_watts=9, busy_watts=9, cores=1, error_watts=None, source="another"))
        assert (again := meter.state())
        assert again.idle_watts == 1.4


def test_a_reader_that_fails_ends_the_figures() -> None:
    reader = MadeUpReader(2.0, None, counts_joules=True)
    with closing(BoardMeter(OpenedReader(reader=reader))) as meter:
        assert meter.state() is None
        assert meter.state() is None
        assert reader.is_closed


def test_the_users_meter() -> None:
    with closing(board_meter("echo 5", None)) as meter:
        wait_for("five seconds", meter.state)
        state = meter.state()
        assert state
        assert abs(state.idle_watts - 5) < 0.01


def test_programs_of_one_machine_have_one_number(tmp_path: Path) -> None:
    assert machine_number() == machine_number()
    assert re.fullmatch("[0-9a-f]{16}", machine_number())
    assert machine_number(tmp_path) != machine_number()
