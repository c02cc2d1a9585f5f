"""Read the measured constants of the cost model from ``calibration.toml``, which has each with its method."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


@cache
def _entries() -> dict[str, dict[str, float]]:
    return tomllib.loads(files("hyps.passes").joinpath("calibration.toml").read_text())


def calibrated(name: str) -> float:
    """Return the value of a constant, in the unit that its name ends in."""
    return _entries()[name]["value"]


def calibrated_bytes(name: str) -> int:
    """Return the value of a constant in bytes."""
    return int(calibrated(name))
