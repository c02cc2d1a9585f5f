"""Test the readers of sensors on the files of real boards, and on files that lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hyps.runtime.energy.battery import battery_reader
from hyps.runtime.energy.ina import ina_reader
from hyps.runtime.energy.pmic import pmic_reader
from hyps.runtime.energy.rapl import rapl_reader
from hyps.runtime.energy.reader import EnergyError, EnergyReader, read_number
from tests.runtime.energy.boards import (
    AGX_ORIN,
    BATTERY,
    BATTERY_CURRENT,
    INA219,
    INA3221,
    JETSON_IIO,
    PMIC_OUTPUT,
    RAPL,
    lay_out,
)

Opener = Callable[[Path], EnergyReader | None]


def printing(tmp_path: Path, text: str, ending: str = "") -> tuple[str, ...]:
    """Return a command that prints a text, and then runs ``ending``."""
    (tmp_path / "output").write_text(text)
    return ("sh", "-c", f"cat {tmp_path / 'output'}; {ending}:")


@pytest.mark.parametrize(
    ("opener", "tree", "watts", "covers"),
    [
        (ina_reader, INA219, 3.12, "the rail ina219, unlabelled"),
        (ina_reader, INA3221, 5.008 * 0.896, "the rail VDD_IN"),
        (
            ina_reader,
            AGX_ORIN,
            12.008 * 0.32 + 4.968 * 1.18,
            "the sum of the rails VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO",
        ),
        (ina_reader, JETSON_IIO, 2.214, "the rail POM_5V_IN"),
        (battery_reader, BATTERY, 8.412, "the whole device, its display included"),
        (battery_reader, BATTERY_CURRENT, 3.8, "the whole device, its display included"),
    ],
    ids=["ina219", "orin nano", "agx orin", "jetson nano", "laptop", "laptop by current"],
)
def test_a_board(tmp_path: Path, opener: Opener, tree: Mapping[str, str], watts: float, covers: str) -> None:
    assert opener(tmp_path) is None
    reader = opener(lay_out(tmp_path, tree))
    assert reader is not None
    assert not reader.counts_joules
    assert reader.read() == pytest.approx(watts)
    assert reader.covers == covers


def test_rails_without_an_input_are_added_up(tmp_path: Path) -> None:
    """A channel that is switched off is left out, as are the drops over the resistors and the sum of the currents."""
    rails = {name: content for name, content in INA3221.items() if "1_" not in name.rpartition("/")[2]}
    reader = ina_reader(lay_out(tmp_path, rails))
    assert reader
    assert reader.covers == "the sum of the rails VDD_CPU_GPU_CV, VDD_SOC"
    assert reader.read() == pytest.approx(5 * (0.152 + 0.288))
    (tmp_path / "sys/class/hwmon/hwmon1/in2_enable").write_text("0\n")
    reader = ina_reader(tmp_path)
    assert reader
    assert reader.read() == pytest.approx(5 * 0.288)


def test_an_ina_without_a_power_file(tmp_path: Path) -> None:
    reader = ina_reader(lay_out(tmp_path, {name: text for name, text in INA219.items() if "power1" not in name}))
    assert reader
    assert reader.read() == pytest.approx(5.108 * 0.612)


def test_rapl_adds_packages_and_memory_alone(tmp_path: Path) -> None:
    """Neither *core*, which is a part, nor *psys*, nor the same package by another interface is counted."""
    reader = rapl_reader(lay_out(tmp_path, RAPL))
    assert reader
    assert reader.counts_joules
    assert reader.covers.startswith("2 processor packages and memory;")
    assert reader.read() == 0
    zones = tmp_path / "sys/class/powercap"
    (zones / "intel-rapl:1/energy_uj").write_text("7500000\n")
    (zones / "intel-rapl:0:1/energy_uj").write_text("1250000\n")
    for other in ("intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        (zones / other / "energy_uj").write_text("0\n")
    assert reader.read() == pytest.approx(2.5 + 0.25)


def test_rapl_overflows(tmp_path: Path) -> None:
    reader = rapl_reader(lay_out(tmp_path, RAPL))
    assert reader
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    for value, joules in ((671_150, 1.0), (2_671_150, 3.0), (262_143_000_000, 262_143.328850), (671_150, 262_144.328850)):
        counter.write_text(f"{value}\n")
        assert reader.read() == pytest.approx(joules)


def test_rapl_may_not_be_read(tmp_path: Path) -> None:
    """The counters are root's; a folder in the file's place fails for root, too, who runs the tests in a container."""
    lay_out(tmp_path, RAPL)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    if os.geteuid():
        counter.chmod(0)
        reason = "Permission denied"
    else:
        counter.unlink()
        counter.mkdir()
        reason = "Is a directory"
    with pytest.raises(EnergyError) as caught:
        rapl_reader(tmp_path)
    assert str(caught.value) == (
        f"the processor's energy counters cannot be read: cannot read {counter}: {reason}; "
        f"run 'sudo chmod a+r {tmp_path}/sys/class/powercap/intel-rapl:*/energy_uj', which lasts until the next start, or "
        "run as root"
    )


def test_a_battery_that_is_charged_gives_nothing(tmp_path: Path) -> None:
    reader = battery_reader(lay_out(tmp_path, BATTERY))
    assert reader
    (tmp_path / "sys/class/power_supply/BAT0/status").write_text("Charging\n")
    with pytest.raises(EnergyError, match="does not discharge"):
        reader.read()
    assert battery_reader(tmp_path) is None


def test_the_rails_of_a_raspberry_pi_5(tmp_path: Path) -> None:
    reader = pmic_reader(printing(tmp_path, PMIC_OUTPUT))
    assert reader
    assert reader.covers.startswith("12 rails of the board;")
    assert reader.read() == pytest.approx(2.0, rel=0.05)
    without_core = "".join(f"{line}\n" for line in PMIC_OUTPUT.splitlines() if "CORE" not in line)
    watts = reader.read()
    (tmp_path / "output").write_text(without_core)
    assert watts - reader.read() == pytest.approx(0.75012 * 0.72)


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ('error=1 error_msg="Command not registered"\n', ""),
        ("VDD_CORE_A current(7)=0.5A\n", ""),
        ("VDD_CORE_A volt(7)=0.5A\nVDD_CORE_V volt(15)=0.7V\n", ""),
        ("VDD_CORE_A current(7)=nanA\nVDD_CORE_V volt(15)=0.7V\n", ""),
        ("VDD_CORE_A current(7)=999999A\nVDD_CORE_V volt(15)=999999V\n", ""),
        (PMIC_OUTPUT, "exit 3;"),
        (PMIC_OUTPUT * 30, ""),
        ("\x1b]0;title\x07" * 100, ""),
    ],
    ids=["old firmware", "no voltage", "wrong unit", "no number", "too much", "failure", "too long", "terminal codes"],
)
def test_output_that_is_no_power(tmp_path: Path, text: str, ending: str) -> None:
    reader = pmic_reader(printing(tmp_path, text, ending))
    if reader:  # the figures are only checked when they are read
        with pytest.raises(EnergyError, match="no device takes"):
            reader.read()


def test_a_device_without_vcgencmd() -> None:
    assert pmic_reader(("/nonexistent/vcgencmd", "pmic_read_adc")) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds '' and no whole number"),
        ("12.5", "holds '12.5' and no whole number"),
        ("0x10", "no whole number"),
        ("1" * 5000, "no whole number"),
        ("\x1b[31m5", "no whole number"),
        ("99999999999999", "which no device takes"),
        ("-5000000", "which no device takes"),
    ],
)
def test_a_file_that_lies(tmp_path: Path, content: str, problem: str) -> None:
    lay_out(tmp_path, INA219)
    (tmp_path / "sys/class/hwmon/hwmon2/power1_input").write_text(content)
    with pytest.raises(EnergyError, match=problem) as caught:
        ina_reader(tmp_path)
    assert str(caught.value).isprintable()


def test_a_pipe_in_a_files_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnergyError, match="no whole number"):
        read_number(tmp_path / "pipe")


def test_a_counter_past_its_range(tmp_path: Path) -> None:
    reader = rapl_reader(lay_out(tmp_path, RAPL))
    assert reader
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("-300000000000\n")
    with pytest.raises(EnergyError, match="past its range"):
        reader.read()
