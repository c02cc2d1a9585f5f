"""Test the choice of a source, the adding up of its joules, and their division by inferences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.bundle.records.target import PowerRecord
from hyps.runtime.energy.choice import OpenedReader, open_energy_reader, open_measuring_reader
from hyps.runtime.energy.estimate import EstimateReader, PowerFigures, given_power, recorded_power
from hyps.runtime.energy.reader import EnergyError
from hyps.runtime.energy.report import EnergyWindow, energy_lines, energy_record, joules_text
from hyps.runtime.energy.sampler import EnergySampler
from tests.runtime.energy.boards import BATTERY, INA219, INA3221, PMIC_OUTPUT, RAPL, lay_out
from tests.waiting import wait_for

NO_PMIC = ("/nonexistent/vcgencmd",)
POWER = PowerFigures(idle_watts=1.4, busy_watts=3.4, cores=4, error_watts=0.2, source="target rpi3b")


class MadeUpReader:
    """A reader that returns given values in turn, then the last one for ever; None is a fault."""

    name, covers = "made up", "nothing"

    def __init__(self, *values: float | None, counts_joules: bool) -> None:
        self.counts_joules = counts_joules
        self._values = [*values]
        self.is_closed = False

    def read(self) -> float:
        value = self._values.pop(0) if len(self._values) > 1 else self._values[0]
        if value is None:
            raise EnergyError("it is unplugged", "plug it in")
        return value

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("trees", "has_pmic", "name"),
    [
        ((INA219, RAPL, BATTERY), True, "ina219 sensor"),
        ((INA3221, BATTERY), True, "ina3221 sensor"),
        ((RAPL, BATTERY), True, "PMIC"),
        ((RAPL, BATTERY), False, "RAPL"),
        ((BATTERY,), False, "battery"),
        ((), False, "estimated from target rpi3b"),
    ],
)
def test_the_best_source_is_taken(tmp_path: Path, trees: tuple[Mapping[str, str], ...], has_pmic: bool, name: str) -> None:
    (tmp_path / "output").write_text(PMIC_OUTPUT)
    pmic = ("cat", str(tmp_path / "output")) if has_pmic else NO_PMIC
    root = lay_out(tmp_path / "root", *trees)
    opened = open_energy_reader(None, POWER, root=root, pmic=pmic)
    assert opened.reader.name == name
    assert opened.unusable == ()
    assert opened.reader.covers


def test_the_users_meter_is_first_and_may_not_fail(tmp_path: Path) -> None:
    opened = open_energy_reader("echo 2.5", POWER, root=lay_out(tmp_path, INA219), pmic=NO_PMIC)
    with closing(opened.reader):
        assert (opened.reader.name, opened.reader.read()) == ("meter 'echo 2.5'", 2.5)
    with pytest.raises(EnergyError, match=r"printed nothing"):
        open_energy_reader("false", POWER, root=tmp_path, pmic=NO_PMIC)


def test_a_sensor_that_fails_is_passed_over_and_named(tmp_path: Path) -> None:
    lay_out(tmp_path, INA219, BATTERY)
    (tmp_path / "sys/class/hwmon/hwmon2/power1_input").write_text("broken\n")
    opened = open_measuring_reader(root=tmp_path, pmic=NO_PMIC)
    assert isinstance(opened, OpenedReader)
    assert opened.reader.name == "battery"
    assert len(opened.unusable) == 1
    assert opened.unusable[0].endswith("power1_input holds 'broken' and no whole number")


def test_nothing_measures_and_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(EnergyError) as caught:
        open_energy_reader(None, None, root=tmp_path, pmic=NO_PMIC)
    assert str(caught.value) == (
        "this device has no power sensor that can be read, and its idle and busy watts are not known; "
        "give --meter CMD, which prints watts, or --watts IDLE,BUSY"
    )


def test_an_estimate_is_called_so_and_follows_the_processor() -> None:
    """A second on one of four cores costs a second idle and a quarter of the difference."""
    reader = EstimateReader(POWER)
    assert reader.covers.endswith("the fit's error: 0.20 W")
    began, computed, joules = time.monotonic(), time.process_time(), reader.read()
    while time.process_time() - computed < 0.3:
        pass
    after = reader.read()
    seconds, computed = time.monotonic() - began, time.process_time() - computed
    assert after - joules == pytest.approx(1.4 * seconds + 0.5 * computed, rel=0.01)
    assert POWER.watts(2) == pytest.approx(2.4)


def test_powers_from_a_manifest_and_from_the_command_line() -> None:
    record = PowerRecord(idle_milliwatts=1400, busy_milliwatts=3700, cores=4, error_milliwatts=150)
    assert recorded_power(record, "rpi3b") == PowerFigures(
        idle_watts=1.4, busy_watts=3.7, cores=4, error_watts=0.15, source="target rpi3b"
    )
    given = given_power("1.4,3.7", 2)
    assert (given.idle_watts, given.busy_watts, given.cores, given.source) == (1.4, 3.7, 2, "--watts")


@pytest.mark.parametrize("text", ["", "3", "3,2", "-1,2", "a,b", "1,2,3", "nan,2", "1,inf", "1,100000"])
def test_powers_that_are_none(text: str) -> None:
    with pytest.raises(EnergyError, match=r"give both in watts, such as 1\.4,3\.7"):
        given_power(text, 4)


def test_joules_of_a_counter() -> None:
    reader = MadeUpReader(100.0, 103.5, 103.5, counts_joules=True)
    with closing(EnergySampler(reader)) as sampler:
        assert sampler.joules() == pytest.approx(3.5)
    assert reader.is_closed


def test_joules_of_watts() -> None:
    """Between two samples watts change evenly: 2 W, then 4 W for good."""
    began = time.monotonic()
    with closing(EnergySampler(MadeUpReader(2.0, 4.0, counts_joules=False))) as sampler:
        first = sampler.joules()
        wait_for("a second passes", lambda: time.monotonic() > began + 1)
        joules, seconds = sampler.joules(), time.monotonic() - began
    assert 0 <= first < 4 * seconds
    assert joules <= 4 * seconds
    assert joules == pytest.approx(4 * seconds, rel=0.05, abs=0.3)


def test_a_reader_that_fails_meanwhile() -> None:
    with closing(EnergySampler(MadeUpReader(2.0, None, counts_joules=False))) as sampler:
        wait_for("it fails", lambda: sampler._fault)
        with pytest.raises(EnergyError, match="it is unplugged; plug it in"):
            sampler.joules()


def test_static_and_dynamic_apart() -> None:
    """10 s at 2 W idle and 5 inferences: 4 J each are static, the rest dynamic."""
    opened = OpenedReader(reader=MadeUpReader(1.0, counts_joules=False))
    windows = [EnergyWindow(seconds=10.0, inferences=5, joules=joules) for joules in (30.0, 40.0, 35.0)]
    record = energy_record(opened, 2.0, "made up, measured", windows)
    assert (record.static_joules, record.dynamic_joules, record.joules) == (4.0, 3.0, 7.0)
    assert record.spread == pytest.approx(2 / 7)
    assert not record.estimated
    text = "\n".join(energy_lines(record))
    assert text.startswith(
        "7.00 J an inference (made up): 4.00 J static (2.000 W idle by made up, measured), 3.00 J dynamic"
    )
    assert "window 2: 5 inferences in 10.0 s, 4.000 W; each 4.00 J static, 4.00 J dynamic" in text
    assert "the median of 3 windows, whose totals spread by 28.6%" in text
    assert "windows of less than 30 s give rough figures" in text
    assert len([*energy_lines(record, quiet=True)]) == 1


def test_an_estimates_error_is_in_the_record() -> None:
    opened = OpenedReader(reader=EstimateReader(POWER))
    record = energy_record(opened, 1.4, "target", [EnergyWindow(seconds=30.0, inferences=1, joules=60.0)])
    assert (record.estimated, record.estimate_error_watts) == (True, 0.2)
    assert "rough" not in "".join(energy_lines(record))


@pytest.mark.parametrize(
    ("joules", "text"), [(3.0719, "3.07 J"), (0.0412, "41.2 mJ"), (-1e-7, "0.0 mJ"), (1234.5, "1,234.50 J")]
)
def test_joules_in_words(joules: float, text: str) -> None:
    assert joules_text(joules) == text
