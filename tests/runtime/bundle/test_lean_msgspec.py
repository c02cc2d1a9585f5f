"""A manifest is read without typing_extensions, which can be imported afterwards."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import PATIENCE_S

SCRIPT = """
import sys
import hyps.runtime.execution.loading
print("typing_extensions" in sys.modules, "msgspec" in sys.modules)
import typing_extensions
print(typing_extensions.get_type_hints.__module__)
"""


def test_msgspec_is_imported_alone() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.split() == ["False", "True", "typing_extensions"]
