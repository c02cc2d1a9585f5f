"""Test the user's meter: commands that print once, commands that go on, and commands that do neither well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyps.runtime.energy.meter import CommandMeter
from hyps.runtime.energy.reader import EnergyError
from tests.waiting import wait_for


@pytest.mark.parametrize(
    "command",
    [
        "echo 3.72",
        "echo '3.72 W'",
        "printf 3.72",
        "sh -c 'echo 9; echo 3.72; exec sleep 100'",
        "sh -c 'sleep 0.2; echo 3.72'",
    ],
    ids=["a call", "with its unit", "without line end", "goes on", "slow"],
)
def test_a_command_that_prints_watts(command: str) -> None:
    meter = CommandMeter(command)
    try:
        assert meter.read() in (9, 3.72)
        wait_for("the last line", lambda: meter.read() == 3.72)
    finally:
        meter.close()


def test_a_call_is_made_again(tmp_path: Path) -> None:
    """Each call prints one number more."""
    count = tmp_path / "count"
    meter = CommandMeter(f"sh -c 'echo x >> {count}; wc -l < {count}'")
    try:
        first = meter.read()
        wait_for("two more calls", lambda: meter.read() >= first + 2)
    finally:
        meter.close()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/nonexistent/meter", "cannot start '/nonexistent/meter': No such file or directory"),
        ("false", "meter 'false' printed nothing"),
        ("sh -c 'echo 5; exit 7'", "failed with exit code 7"),
        ("true", "printed nothing; it must print watts, one number a line, such as 3.72"),
        ("echo 3720 mW", "printed '3720 mW'"),
        ("echo nan", "printed 'nan'"),
        ("echo -1", "says -1 W, which no device takes"),
        ("echo 1000000", "says 1e+06 W, which no device takes"),
        ("sleep 100", "printed no line in 1 s"),
        ("head -c 100000 /dev/zero", "printed a line of over 1000 bytes"),
        ("sh -c 'printf \"\\033]0;x\\007\"'", "printed "),
        ("sh -c 'exec >&-; echo 5 >&2; sleep 100'", "printed nothing"),
    ],
)
def test_a_command_that_does_not(command: str, problem: str) -> None:
    meter = CommandMeter(command, timeout_s=1)

    def fails() -> bool:
        try:
            meter.read()
        except EnergyError as error:
            assert problem in str(error)
            assert str(error).isprintable()
            return True
        return False

    try:
        wait_for(f"{command!r} fails", fails)
    finally:
        meter.close()


@pytest.mark.parametrize(("command", "problem"), [("", "names no command"), ("echo 'open", "is no command line")])
def test_a_command_line_that_is_none(command: str, problem: str) -> None:
    with pytest.raises(EnergyError, match=problem):
        CommandMeter(command)


def test_all_that_the_command_started_is_ended(tmp_path: Path) -> None:
    """A meter's child that goes on in the background is in its process group."""
    pid = tmp_path / "pid"
    meter = CommandMeter(f"sh -c 'sleep 1000 & echo $! > {pid}; echo 5; wait'")
    assert meter.read() == 5
    child = int(pid.read_text())
    os.kill(child, 0)
    meter.close()
    wait_for("the child ends", lambda: is_gone(child))


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; it may be a zombie that nobody waits for."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
