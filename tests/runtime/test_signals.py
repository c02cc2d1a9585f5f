"""Test that a signal decides the exit code and what is written, wherever in the program it arrives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

PROGRAM = """
import os, signal, threading
from pathlib import Path
from hyps.models.staging import staged_file
from hyps.runtime.signals import deferred_signals, unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit

class Released:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(10_000):
            pass

def turned_into(error):
    try:
        os.kill(os.getpid(), {number})
    except SystemExit:
        raise error from None

def by_another_thread():
    def act():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [{number}])  # as in a thread that was there before
        signal.pthread_kill(threading.get_ident(), {number})

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()

def act():
    {body}

unwind_on_signals()
run_and_exit("test", act, (OSError,))
"""


def run(number: int, body: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose work is ``body``."""
    program = PROGRAM.format(number=number, body=body.format(number=number))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize(
    ("body", "unraisable"),
    [("os.kill(os.getpid(), {number})", False), ("Released()", True)],
    ids=["in the work", "in __del__"],
)
def test_the_exit_code_names_the_signal(number: int, body: str, unraisable: bool) -> None:
    """Python drops the exception of a handler that runs inside ``__del__``; the work then goes on to its end."""
    done = run(number, body)
    assert (done.returncode, "SystemExit" in done.stderr) == (128 + number, unraisable), done.stderr


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize("error", ["RuntimeError", "ImportError", "OSError", "BrokenPipeError"])
def test_a_library_turns_it_into_another_error(number: int, error: str) -> None:
    """Extension modules do, where a signal arrives while they are imported."""
    done = run(number, f"turned_into({error}('lost'))")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


@pytest.mark.parametrize("error", ["RuntimeError", "ImportError"])
def test_a_bug_without_a_signal_keeps_its_traceback(error: str) -> None:
    done = run(2, f"raise {error}('a bug')")
    assert (done.returncode, f"{error}: a bug" in done.stderr) == (1, True)


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize("body", ["Released()", "by_another_thread()"])
def test_an_interrupted_command_puts_no_file_in_its_place(number: int, body: str, tmp_path: Path) -> None:
    done = run(number, f"with staged_file(Path({str(tmp_path / 'out')!r})) as draft: draft.touch(); {body}")
    assert (done.returncode, done.stdout, [*tmp_path.iterdir()]) == (128 + number, "", [])


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize("end", ["pass", "raise OSError"], ids=["that ends", "that raises"])
@pytest.mark.parametrize("body", ["os.kill(os.getpid(), {number})", "by_another_thread()"])
def test_a_deferred_signal_waits_for_the_block(number: int, body: str, end: str) -> None:
    """Blocking is not enough: a signal may reach another thread, and its handler still runs in the main one."""
    done = run(number, f"with deferred_signals(): {body}; print('whole'); {end}")
    assert (done.returncode, done.stdout) == (128 + number, "whole\n"), done.stderr
