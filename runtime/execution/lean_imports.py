"""Import numpy and onnxruntime, and give back the pages of code that only imports need.

Otherwise the imports are the peak of a process whose network is small: 55 MB instead of 40 (onnxruntime 1.32).
"""

from __future__ import annotations

from hyps.runtime.device.process_memory import CodePages


def import_libraries() -> None:
    """Import the libraries one after the other. Call this before anything else that imports them."""
    import numpy  # noqa: F401

    CodePages().release()
    import onnxruntime  # noqa: F401

    CodePages().release()
