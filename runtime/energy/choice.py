"""Open the best source of energy figures that a device has.

Readers that start programs are imported only where such a program exists: they take a megabyte of a small device's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.device.available_memory import FILESYSTEM_ROOT
from hyps.runtime.energy.battery import battery_reader
from hyps.runtime.energy.estimate import EstimateReader, PowerFigures
from hyps.runtime.energy.ina import ina_reader
from hyps.runtime.energy.rapl import rapl_reader
from hyps.runtime.energy.reader import EnergyError, EnergyReader

#: The command of a Raspberry Pi 5's firmware that shows its power.
PMIC_COMMAND = ("vcgencmd", "pmic_read_adc")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedReader:
    """A reader that works, and why better ones do not (``unusable``)."""

    reader: EnergyReader
    unusable: tuple[str, ...] = ()

    @property
    def power(self) -> PowerFigures | None:
        """The figures of an estimate; None where something is measured."""
        return self.reader.power if isinstance(self.reader, EstimateReader) else None


def open_measuring_reader(
    meter: str | None = None, *, root: Path = FILESYSTEM_ROOT, pmic: Sequence[str] = PMIC_COMMAND
) -> OpenedReader | tuple[str, ...]:
    """Open the first of: the user's meter, INA sensors, a Raspberry Pi 5's PMIC, RAPL, a battery.

    Where none works, return why those that are there do not. Raises `EnergyError` if the user's meter does not work.
    """
    if meter is not None:
        from hyps.runtime.energy.meter import CommandMeter

        reader = CommandMeter(meter)
        try:
            reader.read()
        except EnergyError:
            reader.close()
            raise
        return OpenedReader(reader=reader)
    openers: tuple[Callable[[], EnergyReader | None], ...] = (
        lambda: ina_reader(root),
        lambda: _pmic_reader(pmic),
        lambda: rapl_reader(root),
        lambda: battery_reader(root),
    )
    unusable: list[str] = []
    for opener in openers:
        try:
            found = opener()
        except EnergyError as error:
            unusable.append(str(error))
            continue
        if found:
            return OpenedReader(reader=found, unusable=tuple(unusable))
    return tuple(unusable)


def _pmic_reader(command: Sequence[str]) -> EnergyReader | None:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if not any(os.access(os.path.join(folder, command[0]), os.X_OK) for folder in folders):  # noqa: PTH118
        return None
    from hyps.runtime.energy.pmic import pmic_reader

    return pmic_reader(command)


def open_energy_reader(
    meter: str | None,
    power: PowerFigures | None,
    *,
    root: Path = FILESYSTEM_ROOT,
    pmic: Sequence[str] = PMIC_COMMAND,
) -> OpenedReader:
    """Open the first reader that measures, else an estimate from the device's ``power``.

    Raises `EnergyError` where there is neither.
    """
    opened = open_measuring_reader(meter, root=root, pmic=pmic)
    if isinstance(opened, OpenedReader):
        return opened
    if power is None:
        why = f" ({'; '.join(opened)})" if opened else ""
        raise EnergyError(
            f"this device has no power sensor that can be read{why}, and its idle and busy watts are not known",
            "give --meter CMD, which prints watts, or --watts IDLE,BUSY",
        )
    return OpenedReader(reader=EstimateReader(power), unusable=opened)
