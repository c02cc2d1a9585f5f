"""Read the INA power monitors of Texas Instruments by the kernel: ``/sys/class/hwmon``, or ``iio`` on a Jetson's kernel 4.9.

A chip with one channel (ina219, ina226) has ``power1_input`` in microwatts, ``in1_input`` in millivolts and ``curr1_input``
in milliamperes. An ina3221 has three channels, ``in[1-3]_input`` and ``curr[1-3]_input``; ``in[4-7]_input`` are the drops
over its resistors, and ``curr4_input`` is a sum (the kernel's Documentation/hwmon/ina3221.rst and ina2xx.rst).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.energy.reader import checked_watts, read_label, read_number

_CHIP = re.compile(r"ina\d{3,4}[a-z]?\Z")
#: The rail that feeds all others has such a label: VDD_IN, POM_5V_IN, VIN.
_INPUT_RAIL = re.compile(r"(.*_)?(IN|VIN)\Z", re.IGNORECASE)
#: The label of a channel that measures nothing, as on a Jetson AGX Orin.
_UNCONNECTED = "NC"
_MOST_CHIPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    """One measured rail."""

    chip: str
    label: str
    watts: Callable[[], float]


class InaReader:
    """The watts of the INA channels of a device: of the rail that feeds all others where one is labelled so, else of all."""

    counts_joules = False

    def __init__(self, channels: list[_Channel]) -> None:
        inputs = [channel for channel in channels if _INPUT_RAIL.match(channel.label)]
        self._channels = inputs or channels
        self.name = f"{channels[0].chip} sensor"
        rails = [channel.label or f"{channel.chip}, unlabelled" for channel in self._channels]
        self.covers = f"{'the rail' if len(rails) == 1 else 'the sum of the rails'} {', '.join(rails)}"

    def read(self) -> float:
        """Return the watts now. Raises `EnergyError`."""
        return checked_watts(sum(channel.watts() for channel in self._channels), self.name)

    def close(self) -> None:
        """Do nothing."""


def ina_reader(root: Path) -> InaReader | None:
    """Return the reader of the INA chips whose files lie below ``root``, or None. Raises `EnergyError`."""
    channels = [*_hwmon_channels(root / "sys/class/hwmon"), *_iio_channels(root / "sys/bus/i2c/drivers/ina3221x")]
    if not channels:
        return None
    reader = InaReader(channels)
    reader.read()
    return reader


def _hwmon_channels(folder: Path) -> Iterator[_Channel]:
    for chip in sorted(folder.glob("hwmon*"))[: 4 * _MOST_CHIPS]:
        name = read_label(chip / "name")
        if not _CHIP.match(name):
            continue
        if name.startswith("ina3221"):
            for number in (1, 2, 3):
                label = read_label(chip / f"in{number}_label")[:40]
                is_off = read_label(chip / f"in{number}_enable") == "0" or label == _UNCONNECTED
                if (chip / f"curr{number}_input").exists() and not is_off:
                    yield _Channel(chip=name, label=label, watts=_product(chip, number))
        elif (power := chip / "power1_input").exists():
            yield _Channel(chip=name, label=read_label(chip / "power1_label")[:40], watts=_scaled(power, 1e-6))
        elif (chip / "curr1_input").exists():
            yield _Channel(chip=name, label="", watts=_product(chip, 1))


def _iio_channels(folder: Path) -> Iterator[_Channel]:
    """Yield the channels of NVIDIA's own driver, whose powers are in milliwatts."""
    for power in sorted(folder.glob("*/iio:device*/in_power[0-2]_input"))[: 3 * _MOST_CHIPS]:
        label = read_label(power.with_name(f"rail_name_{power.name[len('in_power')]}"))[:40]
        yield _Channel(chip="ina3221", label=label, watts=_scaled(power, 1e-3))


def _scaled(path: Path, scale: float) -> Callable[[], float]:
    return lambda: read_number(path) * scale


def _product(chip: Path, number: int) -> Callable[[], float]:
    """Return the watts as volts times amperes: the files are in millivolts and milliamperes."""

    def watts() -> float:
        milliamperes = read_number(chip / f"curr{number}_input")
        return max(0, milliamperes) * read_number(chip / f"in{number}_input") * 1e-6  # an idle rail may read just below 0

    return watts
