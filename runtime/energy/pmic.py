"""Read the power of a Raspberry Pi 5 from its power management chip: ``vcgencmd pmic_read_adc``.

The firmware prints a line for each rail's current and for its voltage::

     3V3_SYS_A current(1)=0.12687090A
     3V3_SYS_V volt(9)=3.32580900V

A rail's power is the product of the two. ``EXT5V_V`` and ``BATT_V`` have no current.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyps.runtime.energy.command import program_output
from hyps.runtime.energy.reader import EnergyError, checked_watts

_LINE = re.compile(r"\s*([A-Z0-9_]{1,32})_(A|V) (current|volt)\(\d{1,3}\)=(\d{1,6}(?:\.\d{1,12})?)(A|V)\s*\Z")
_OUTPUT_BYTES, _TIMEOUT_S = 1 << 14, 5.0


class PmicReader:
    """The sum of the rails that a Raspberry Pi 5's power management chip measures: 12 of them."""

    counts_joules = False
    name = "PMIC"

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        rails = _rails(self._output())
        self.covers = (
            f"{len(rails)} rails of the board; not USB devices, what hangs on the 5 V pins, nor the loss in the regulators"
        )

    def read(self) -> float:
        """Return the watts now. Raises `EnergyError`."""
        return checked_watts(sum(amperes * volts for amperes, volts in _rails(self._output()).values()), self.name)

    def close(self) -> None:
        """Do nothing."""

    def _output(self) -> str:
        return program_output(self._command, limit_bytes=_OUTPUT_BYTES, timeout_s=_TIMEOUT_S)


def pmic_reader(command: Sequence[str]) -> PmicReader | None:
    """Return the reader, or None on a device without such a chip."""
    try:
        return PmicReader(command)
    except EnergyError:  # no such command, or a board whose firmware does not know it
        return None


def _rails(output: str) -> dict[str, tuple[float, float]]:
    """Return amperes and volts by rail. Raises `EnergyError` where there is none, or a rail has no voltage."""
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in output.splitlines():
        match = _LINE.match(line)
        if match and match[2] == match[5] and (match[2] == "A") == (match[3] == "current"):
            found[match[2]][match[1]] = float(match[4])
    amperes, volts = found["A"], found["V"]
    if not amperes or not amperes.keys() <= volts.keys():
        raise EnergyError(
            f"vcgencmd pmic_read_adc printed {len(amperes)} currents and {len(volts)} voltages that do not pair"
        )
    return {rail: (amperes[rail], volts[rail]) for rail in amperes}
