"""Test how calibration measures power, with a meter that shows what is computed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hyps.runtime.calibration.power import PowerProbe, power
from hyps.runtime.energy.choice import OpenedReader
from hyps.runtime.energy.reader import EnergyError
from tests.runtime.energy.test_measuring import MadeUpReader


def test_power_by_busy_cores(tmp_path: Path) -> None:
    """The meter shows 2 W, and 1 W more for each thread of the load; the load says how many it has."""
    shown = tmp_path / "watts"
    shown.write_text("2.0\n")
    pause = threading.Event()

    def load(threads: int) -> None:
        partial = tmp_path / "partial"
        partial.write_text(f"{2 + threads}\n")
        partial.rename(shown)
        pause.wait(0.05)

    probe = power(4, f"cat {shown}", load, rest_s=0.1, measure_s=2.5)
    assert probe
    assert probe.source == f"meter 'cat {shown}'"
    assert list(probe.watts_by_cores) == [0, 1, 2, 4]
    assert probe.idle_watts == pytest.approx(2, abs=0.01)
    assert probe.idle_watts < probe.watts_by_cores[1] < probe.watts_by_cores[2] < probe.busy_watts <= 6


def test_the_error_is_that_of_the_worst_point() -> None:
    probe = PowerProbe(watts_by_cores={0: 1.0, 1: 2.5, 2: 3.1, 4: 5.0}, source="", covers="")
    assert probe.error_watts == pytest.approx(0.5)
    assert PowerProbe(watts_by_cores={0: 1.0, 1: 2.0}, source="", covers="").error_watts is None
    assert PowerProbe(watts_by_cores={0: 1.2, 1: 1.1}, source="", covers="").busy_watts == 1.2


def test_a_meter_that_does_not_work() -> None:
    with pytest.raises(EnergyError, match="must print watts"):
        power(1, "echo nothing", lambda threads: None)


def test_a_sensor_that_fails_costs_no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for it: the other figures are worth having."""
    opened = OpenedReader(reader=MadeUpReader(2.0, None, counts_joules=True))
    monkeypatch.setattr("hyps.runtime.calibration.power.open_measuring_reader", lambda meter: opened)
    assert power(1, None, lambda threads: None, rest_s=0.0, measure_s=0.1) is None
