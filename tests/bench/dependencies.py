"""Measure the memory that each library of the runtime adds to the process."""

from __future__ import annotations

import sys

from tests.bench.place import Place, output
from tests.bench.readings import Imported

#: The first stands for Python itself: what restarts the process lean, and measures it.
PYTHON = "hyps.runtime.device.process_memory"
NAMES = (PYTHON, "msgspec", "hyps.runtime.bundle.manifest", "numpy", "onnxruntime", "PIL.Image", "hyps.runtime.cli.main")
_CODE = """
import importlib, sys
from hyps.runtime.device.process_memory import memory, restart_lean
restart_lean()
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(memory().resident_bytes)
"""


def dependencies(place: Place) -> tuple[Imported, ...]:
    """Resident bytes, one import after the other in one process."""
    lines = output([sys.executable, "-c", _CODE, *NAMES]).splitlines()
    return tuple(Imported(name=name, resident_bytes=int(line)) for name, line in zip(NAMES, lines, strict=True))
