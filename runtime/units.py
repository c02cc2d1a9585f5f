"""One unit of memory in every message: megabytes of 10^6 bytes, as in `hyps.passes.units`, which a device does not have."""

from __future__ import annotations


def megabytes(nbytes: float) -> str:
    """``nbytes`` with one decimal, below one megabyte with three: ``411.0 MB``, ``0.066 MB``."""
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e6:.3f} MB"
