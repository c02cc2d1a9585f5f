"""Import msgspec without typing_extensions, which it prefers to Python's own typing where it is installed.

It takes nothing from there that Python 3.11 lacks, and importing typing_extensions takes three times as long as the rest of
msgspec: 75 of 100 ms of processor time on a busy machine.
"""

from __future__ import annotations

import sys


def import_msgspec() -> None:
    """Import msgspec. Do nothing more where either is imported already."""
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # so that importing it fails, as Python documents
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]
