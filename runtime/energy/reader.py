"""Define what a source of energy figures is, and read its numbers from the kernel's files within bounds."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol

from hyps.runtime.errors import RuntimeFault

#: The largest plausible power of one device in watts: a sensor that says more is broken.
MOST_WATTS = 100_000.0
_NUMBER = re.compile(r"-?\d{1,19}\Z")
_FILE_BYTES = 128


class EnergyError(RuntimeFault):
    """A meter or a sensor is missing, may not be read, or gives an impossible figure."""


class EnergyReader(Protocol):
    """One source of energy figures of this device."""

    @property
    def name(self) -> str:
        """The source's name, which is printed next to every figure."""
        ...

    @property
    def covers(self) -> str:
        """The parts of the device whose power it measures, in words."""
        ...

    @property
    def counts_joules(self) -> bool:
        """Whether `read` returns joules since some moment; else it returns the watts now."""
        ...

    def read(self) -> float:
        """Return the watts or the joules. Raises `EnergyError`."""
        ...

    def close(self) -> None:
        """Give back what the reader holds."""
        ...


def read_line(path: Path) -> str:
    """Return the first line of a kernel's file. Raises `EnergyError` where it cannot be read; such files are short."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(file, _FILE_BYTES)
        finally:
            os.close(file)
    except OSError as error:
        raise EnergyError(f"cannot read {path}: {error.strerror}") from None
    return text.decode("ascii", "replace").strip().partition("\n")[0]


def read_label(path: Path) -> str:
    """Return the first line of a kernel's file; empty where it cannot be read."""
    try:
        return read_line(path)
    except EnergyError:
        return ""


def read_number(path: Path) -> int:
    """Return the whole number in a kernel's file. Raises `EnergyError`."""
    text = read_line(path)
    if not _NUMBER.match(text):
        raise EnergyError(f"{path} holds {text[:40]!r} and no whole number")
    return int(text)


def checked_watts(watts: float, source: str) -> float:
    """Return watts that a device can take. Raises `EnergyError`."""
    if not 0 <= watts <= MOST_WATTS:  # also refuses what is not a number
        raise EnergyError(f"{source} says {watts:.6g} W, which no device takes")
    return watts
