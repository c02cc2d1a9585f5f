"""Write memory in one unit in every message: megabytes of 10^6 bytes.

Where a message says that one number is more than another, `megabytes_up` writes the larger one and `megabytes_down` the
smaller one: what is shown is then in the same order.
"""

from __future__ import annotations

import math


def megabytes(nbytes: float) -> str:
    """Return ``nbytes`` with one decimal, below one megabyte with three: ``411.0 MB``, ``0.066 MB``."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e6:.3f} MB"


def megabytes_up(nbytes: float) -> str:
    """Return ``nbytes`` as `megabytes` does, rounded up: what something needs."""
    return megabytes(math.ceil(nbytes / _unit(nbytes)) * _unit(nbytes))


def megabytes_down(nbytes: float) -> str:
    """Return ``nbytes`` as `megabytes` does, rounded down: what there is."""
    return megabytes(math.floor(nbytes / _unit(nbytes)) * _unit(nbytes))


def _unit(nbytes: float) -> float:
    """Return the bytes of the last digit that is shown."""
    return 1e5 if nbytes >= 1e6 else 1e3
