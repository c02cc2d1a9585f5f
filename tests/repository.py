"""Name the folders that tests and benchmarks start from."""

from __future__ import annotations

import sys
from pathlib import Path

#: The root of this checkout.
ROOT = Path(__file__).resolve().parent.parent
#: The folder of the installed commands.
BIN = Path(sys.executable).parent
