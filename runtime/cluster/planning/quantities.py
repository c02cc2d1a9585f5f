"""Read quantities with units, as text: ``94 Mbit/s``, ``22 MB/s``, ``8.8 ms``, ``1.4 W``, ``700 MB``, ``3.2 GMAC/s``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}

BYTES: Mapping[str, float] = {f"{prefix}B": factor for prefix, factor in (*_DECIMAL.items(), *_BINARY.items())}
#: Bits and bytes a second, in bytes.
BYTES_PER_S: Mapping[str, float] = {
    **{f"{unit}/s": factor for unit, factor in BYTES.items()},
    **{f"{prefix}bit/s": factor / 8 for prefix, factor in _DECIMAL.items()},
}
SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
WATTS: Mapping[str, float] = {"W": 1.0, "mW": 1e-3, "kW": 1e3}
MACS_PER_S: Mapping[str, float] = {f"{prefix}MAC/s": factor for prefix, factor in _DECIMAL.items()}


def quantity(text: str, units: Mapping[str, float], *, least: float = 0.0) -> float:
    """Return a quantity in SI units. Raises ValueError, whose text says what is allowed.

    ``least`` is 0, or a number that the quantity must be above.
    """
    match = re.fullmatch(r"(-?\d{1,15}(?:\.\d{1,12})?(?:e-?\d{1,2})?)\s*(\S{1,8})", text.strip()[:64])
    if not match or match[2] not in units:
        examples = ", ".join(list(units)[:10])
        raise ValueError(f"{text[:64]!r} is no number with a unit of {examples}")
    value = float(match[1]) * units[match[2]]
    if value < 0 or (least and value <= 0):
        raise ValueError(f"{text[:64]!r} is not {'above 0' if least else '0 or more'}")
    return value
