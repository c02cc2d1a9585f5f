"""Test that a signal decides the exit code wherever in the program it arrives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.waiting import PATIENCE_S

PROGRAM = """
import os, signal
from hyps.runtime.signals import unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit

class Released:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(10_000):
            pass

def act():
    {body}

unwind_on_signals()
run_and_exit("test", act, ())
"""


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize(
    ("body", "unraisable"),
    [("os.kill(os.getpid(), {number})", False), ("Released()", True)],
    ids=["in the work", "in __del__"],
)
def test_the_exit_code_names_the_signal(number: int, body: str, unraisable: bool) -> None:
    """Python drops the exception of a handler that runs inside ``__del__``; the work then goes on to its end."""
    program = PROGRAM.format(number=number, body=body.format(number=number))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, "SystemExit" in done.stderr) == (128 + number, unraisable), done.stderr
