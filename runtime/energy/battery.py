"""Read the power that a battery gives by the kernel: ``/sys/class/power_supply``, in microwatts, -volts and -amperes."""

from __future__ import annotations

from pathlib import Path

from hyps.runtime.energy.reader import EnergyError, checked_watts, read_label, read_number


class BatteryReader:
    """The watts that a device's batteries give. On mains power they give none, and then there is no figure."""

    counts_joules = False
    name = "battery"
    covers = "the whole device, its display included"

    def __init__(self, batteries: list[Path]) -> None:
        self._batteries = batteries

    def read(self) -> float:
        """Return the watts now. Raises `EnergyError`, also where the device was plugged in meanwhile."""
        giving = [battery for battery in self._batteries if read_label(battery / "status") == "Discharging"]
        if not giving:
            raise EnergyError("the battery does not discharge, so that its power is not the device's", "unplug the device")
        return checked_watts(sum(map(_watts, giving)), self.name)

    def close(self) -> None:
        """Do nothing."""


def battery_reader(root: Path) -> BatteryReader | None:
    """Return the reader of the device's own batteries below ``root``, or None without one that gives power now.

    Raises `EnergyError` where a battery's power cannot be read. The battery of a mouse has the scope *Device*.
    """
    batteries = [
        supply
        for supply in sorted((root / "sys/class/power_supply").glob("*"))
        if read_label(supply / "type") == "Battery" and read_label(supply / "scope") != "Device"
    ]
    if not any(read_label(battery / "status") == "Discharging" for battery in batteries):
        return None
    reader = BatteryReader(batteries)
    reader.read()
    return reader


def _watts(battery: Path) -> float:
    """Return a battery's power; some drivers give a current that is negative while it discharges."""
    if (battery / "power_now").exists():
        return abs(read_number(battery / "power_now")) * 1e-6
    return abs(read_number(battery / "voltage_now") * read_number(battery / "current_now")) * 1e-12
