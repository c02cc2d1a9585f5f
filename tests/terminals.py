"""Run commands in a terminal of a given width, and stop them with a signal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.waiting import PATIENCE_S

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: The codes of colours and bold, and the code that ends them.
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Seen(NamedTuple):
    """The exit code of a command, its terminal's contents, and its standard output if that was a pipe."""

    returncode: int
    screen: str
    piped: str

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without styles and without text that was overwritten."""
        return [ESCAPE.sub("", line).rpartition("\r")[2] for line in self.screen.replace("\r\n", "\n").split("\n")]


def watched(
    *command: str | Path,
    columns: int = 100,
    piped: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Seen:
    """Run a command in a terminal; ``piped``: its standard output is a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", **(env or {})}
    out = subprocess.PIPE if piped else theirs
    process = subprocess.Popen(command, stdin=theirs, stdout=out, stderr=theirs, env=environment, cwd=cwd)
    os.close(theirs)
    screen = b""
    with suppress(OSError):  # the terminal is gone when the process is
        while block := os.read(ours, 65_536):
            screen += block
    os.close(ours)
    written = process.communicate(timeout=PATIENCE_S)[0] if piped else b""
    return Seen(process.wait(PATIENCE_S), screen.decode(), written.decode())


def interrupted(command: Sequence[str | Path], after_s: float, number: signal.Signals, cwd: Path) -> tuple[int, str]:
    """Send a signal ``after_s`` seconds after a command handles signals; return its exit code and all its output."""
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            while process.poll() is None and not _handles_signals(process.pid):
                time.sleep(0.001)
            time.sleep(after_s)
            process.send_signal(number)
            written, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return process.returncode, written


def _handles_signals(pid: int) -> bool:
    """Return whether a process catches SIGTERM, which Python alone does not (``/proc/PID/status``)."""
    with suppress(OSError):
        caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
