"""Write memory in one unit in every message: megabytes of 10^6 bytes."""

from __future__ import annotations


def megabytes(nbytes: float) -> str:
    """Return ``nbytes`` with one decimal, below one megabyte with three: ``411.0 MB``, ``0.066 MB``."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e6:.3f} MB"
