"""Read an external power meter by a command of the user's, which prints watts."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
import time

from hyps.runtime.energy.command import end_program, has_ended, kill_program, read_some, start_program
from hyps.runtime.energy.reader import EnergyError, checked_watts

_WATTS = re.compile(r"([-+]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12}))(?:\s*W)?\Z")
_LINE_BYTES, _READ_BYTES = 1000, 1 << 14
#: Seconds between two starts of a command that prints one number and ends.
_EVERY_S = 0.25
_REMEDY = "it must print watts, one number a line, such as 3.72"


class CommandMeter:
    """A command that prints watts: one number and ends, and is then started again, or one number a line and goes on.

    Either way a number must come every ``timeout_s`` seconds. The command is no shell's: ``sh -c '...'`` allows pipes.
    """

    counts_joules = False

    def __init__(self, command: str, *, timeout_s: float = 10.0) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise EnergyError(f"--meter {command[:80]!r} is no command line: {error}") from None
        if not self._arguments:
            raise EnergyError("--meter names no command", "give one that prints watts")
        self.name = f"meter '{command[:80]}'"
        self.covers = "what the meter is plugged into"
        self._timeout_s = timeout_s
        self._news = threading.Condition()
        self._watts: float | None = None
        self._read_at = time.monotonic()
        self._fault: EnergyError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="meter", daemon=True)
        self._thread.start()

    def read(self) -> float:
        """Return the newest watts that the command printed; wait for the first. Raises `EnergyError`."""
        with self._news:
            self._news.wait_for(lambda: self._fault or self._watts is not None, self._timeout_s)
            if self._fault:
                raise EnergyError(self._fault.fault.problem, self._fault.fault.remedy)
            if self._watts is None or time.monotonic() > self._read_at + self._timeout_s:
                raise EnergyError(f"{self.name} printed no line in {self._timeout_s:.0f} s", _REMEDY)
            return self._watts

    def close(self) -> None:
        """End the command, and all that it started."""
        self._closed.set()
        with self._news:
            if self._process:
                kill_program(self._process)
        self._thread.join()

    def _follow(self) -> None:
        """Read what the command prints, and start it again when it ends (on a thread of its own)."""
        try:
            while not self._closed.wait(_EVERY_S if self._watts is not None else 0):
                self._run_once()
        except EnergyError as fault:
            with self._news:
                self._fault = fault
                self._news.notify_all()

    def _run_once(self) -> None:
        with self._news:
            if self._closed.is_set():
                return
            process = self._process = start_program(self._arguments)
        try:
            self._read_all(process)
            is_over = has_ended(process, self._timeout_s)
        finally:
            with self._news:
                code = end_program(process)
        if not self._closed.is_set() and (code or not is_over):
            raise EnergyError(f"{self.name} {f'failed with exit code {code}' if is_over else 'closed its output'}", _REMEDY)

    def _read_all(self, process: subprocess.Popen[bytes]) -> None:
        rest, printed = b"", False
        while not self._closed.is_set():
            some = read_some(process, _READ_BYTES, 1.0)
            *lines, rest = (rest + (b"\n" if some is None and rest else some or b"")).split(b"\n")
            if len(rest) > _LINE_BYTES:
                raise EnergyError(f"{self.name} printed a line of over {_LINE_BYTES} bytes", _REMEDY)
            if filled := [line for line in lines if line.strip()]:
                self._take(filled[-1])
                printed = True
            if some is None:
                break
        if not printed and not self._closed.is_set():
            raise EnergyError(f"{self.name} printed nothing", _REMEDY)

    def _take(self, line: bytes) -> None:
        text = line.decode("ascii", "replace").strip()
        found = _WATTS.match(text)
        if not found:
            raise EnergyError(f"{self.name} printed {text[:40]!r}", _REMEDY)
        watts = checked_watts(float(found[1]), self.name)
        with self._news:
            self._watts, self._read_at = watts, time.monotonic()
            self._news.notify_all()
