"""Parse sizes as people write them: ``128MB`` becomes a number of bytes.

A unit is decimal (KB, MB, GB: powers of 1000) or binary (KiB, MiB, GiB: powers of 1024). What HyPS prints is always in MB of
10^6 bytes (`hyps.runtime.units.megabytes`), so that two numbers can be compared.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNIT_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_SIZE = re.compile(r"(?P<sign>-?)(?P<number>[0-9]{1,18}(\.[0-9]{1,18})?) ?(?P<unit>[A-Za-z]*)", re.ASCII)
_BITS = re.compile(r"[KMG]i?b")
_EXAMPLE = "write e.g. 128MB or 122MiB"


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` means, rounded down: a number, an optional space, and a unit.

    Units are B, KB, MB, GB, KiB, MiB and GiB, in upper or lower case. ``Mb`` (megabits) and a bare ``M`` (10^6 or 2^20) are
    refused. Raises `ValueError`, with one line, for these, for a missing unit and for less than one byte.
    """
    stripped = text.strip()
    if not stripped:
        raise ValueError(f"the size is empty; {_EXAMPLE}")
    match = _SIZE.fullmatch(stripped)
    if match is None:
        raise ValueError(f"{stripped!r} is not a size; {_EXAMPLE}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise ValueError(f"{stripped!r} has no unit; {_EXAMPLE}")
    if match["sign"]:
        raise ValueError(f"{stripped!r} is negative; {_EXAMPLE}")
    size_bytes = int(Fraction(number) * _bytes_per(unit, number, stripped))
    if size_bytes < 1:
        raise ValueError(f"{stripped!r} is less than one byte; {_EXAMPLE}")
    return size_bytes


def _bytes_per(unit: str, number: str, text: str) -> int:
    if _BITS.fullmatch(unit):
        raise ValueError(f"{text!r} means bits; write {number}{unit[:-1]}B for bytes")
    if unit.upper() in {"K", "M", "G"}:
        letter = unit.upper()
        raise ValueError(f"{text!r} is ambiguous; write {number}{letter}B (decimal) or {number}{letter}iB (binary)")
    try:
        return _UNIT_BYTES[unit.upper()]
    except KeyError:
        raise ValueError(f"{text!r} has an unknown unit; use B, KB, MB, GB, KiB, MiB or GiB") from None
