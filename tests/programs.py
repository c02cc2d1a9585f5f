"""Find the programs that tests need beside Python: a broker, a browser, shells."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of an installed program; without it, fail under CI, and skip the test elsewhere."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        reason = f"needs {name}: run 'make setup-system' as root (Debian)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
