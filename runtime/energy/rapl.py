"""Read the energy counters of Intel and AMD processors (RAPL) by the kernel: ``/sys/class/powercap/intel-rapl:*``.

``intel-rapl:0`` is a package, ``intel-rapl:0:0`` a part of it. The parts *core* and *uncore* are counted in their package.
*dram* is not, and is added. A zone *psys* covers packages, too, and is left out (the kernel's
Documentation/power/powercap/powercap.rst).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.energy.reader import EnergyError, read_label, read_number

_ZONE = re.compile(r"intel-rapl:\d{1,4}(:\d{1,4})?\Z")
_MOST_ZONES = 256


@dataclass(slots=True, kw_only=True)
class _Zone:
    """One counter in microjoules, which begins at 0 again after ``range_uj``."""

    folder: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def joules(self) -> float:
        now_uj = read_number(self.folder / "energy_uj")
        passed = now_uj - self.last_uj
        if passed < 0:
            passed += self.range_uj
        if passed < 0 or now_uj < 0:
            raise EnergyError(f"{self.folder} counts to {now_uj}, past its range of {self.range_uj}")
        self.last_uj, self.total_uj = now_uj, self.total_uj + passed
        return self.total_uj / 1e6


class RaplReader:
    """The joules of all processor packages and their memory. It must be read at least once a minute: counters overflow."""

    counts_joules = True
    name = "RAPL"

    def __init__(self, zones: list[tuple[str, _Zone]]) -> None:
        self._zones = [zone for _, zone in zones]
        kinds = sorted({re.sub(r"[-\d].*", "", name) for name, _ in zones})
        parts = {"dram": "memory", "package": "processor package"}
        count = sum(name.startswith("package") for name, _ in zones)
        named = [f"{count} {parts[kind]}{'s' if count > 1 else ''}" if kind == "package" else parts[kind] for kind in kinds]
        self.covers = f"{' and '.join(reversed(named))}; not storage, network, fans or the power supply's loss"

    def read(self) -> float:
        """Return the joules since the reader was made. Raises `EnergyError`."""
        return sum(zone.joules() for zone in self._zones)

    def close(self) -> None:
        """Do nothing."""


def rapl_reader(root: Path) -> RaplReader | None:
    """Return the reader of the counters below ``root``, or None without counters.

    Raises `EnergyError` where this user may not read them.
    """
    folder = root / "sys/class/powercap"
    zones: list[tuple[str, _Zone]] = []
    for zone in sorted(folder.glob("intel-rapl:*"))[:_MOST_ZONES]:
        name = read_label(zone / "name")
        is_part = (match := _ZONE.match(zone.name)) is not None and match[1] is not None
        if match and (name == "dram" if is_part else name.startswith("package")):
            try:
                start_uj, range_uj = read_number(zone / "energy_uj"), read_number(zone / "max_energy_range_uj")
            except EnergyError as error:
                remedy = (
                    f"run 'sudo chmod a+r {folder}/intel-rapl:*/energy_uj', which lasts until the next start, or run as root"
                )
                raise EnergyError(f"the processor's energy counters cannot be read: {error}", remedy) from None
            if start_uj < 0 or range_uj <= 0:
                raise EnergyError(f"{zone} has a counter of {start_uj} with a range of {range_uj}")
            zones.append((name, _Zone(folder=zone, range_uj=range_uj, last_uj=start_uj)))
    return RaplReader(zones) if any(name.startswith("package") for name, _ in zones) else None
