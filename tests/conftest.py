"""Provide what all tests share: where things are, and the option that rewrites golden plans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.repository import BIN, ROOT
from tests.waiting import PATIENCE_S

#: In CI the same cases every time, so that only a change decides; elsewhere every run draws new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

#: Started in the background, a shell has ctrl-C ignored, and so would have the commands whose ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
#: pytest-xdist sets it, and commands would make their tables that narrow.
os.environ.pop("COLUMNS", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--draws", type=int, default=12, help="random (network, budget, batch) draws of the regression")
    parser.addoption("--hostile", type=int, default=150, help="messages that each stolen credential of a cluster sends")
    parser.addoption("--update", action="store_true", help="rewrite the golden plans instead of comparing with them")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that measures its own process runs in a new one: here malloc still has what earlier tests freed."""
    if pyfuncitem.get_closest_marker("own_process") is None or "HYPS_OWN_PROCESS" in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{ROOT / pyfuncitem.nodeid}"]
    environment = os.environ | {"HYPS_OWN_PROCESS": "1", "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    return True


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def bin_folder() -> Path:
    """Where the installed commands are."""
    return BIN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and photographs; a test that needs it is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data, the real models and photographs, is not here")
    return folder
