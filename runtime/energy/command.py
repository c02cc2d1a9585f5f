"""Run a program whose output is read within bounds, and end it with everything that it started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from hyps.runtime.energy.reader import EnergyError


def start_program(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, whose output can be read without waiting. Raises `EnergyError`."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise EnergyError(f"cannot start {arguments[0]!r}: {reason}") from None
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    return process


def kill_program(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it started, unless it was waited for: its number may then be another's."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def end_program(process: subprocess.Popen[bytes]) -> int:
    """Kill a program and all that it started, and return its exit code."""
    kill_program(process)
    code = process.wait()
    if process.stdout:
        process.stdout.close()
    return code


def has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Return whether a program ends in this time. It keeps its number, so that `end_program` finds its children."""
    until = time.monotonic() + timeout_s
    while process.returncode is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def read_some(process: subprocess.Popen[bytes], limit_bytes: int, timeout_s: float) -> bytes | None:
    """Wait up to ``timeout_s`` for output and return at most ``limit_bytes`` of it.

    The result is empty where none came in time, and None at the end of the output.
    """
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], max(0.0, timeout_s))
    if not ready:
        return b""
    try:
        return os.read(process.stdout.fileno(), limit_bytes) or None
    except BlockingIOError:
        return b""


def program_output(arguments: Sequence[str], *, limit_bytes: int, timeout_s: float) -> str:
    """Return all that a program prints. Raises `EnergyError` where it fails, prints too much or takes too long."""
    process = start_program(arguments)
    try:
        output, until = b"", time.monotonic() + timeout_s
        while (some := read_some(process, limit_bytes + 1 - len(output), until - time.monotonic())) is not None:
            output += some
            if len(output) > limit_bytes:
                raise EnergyError(f"{arguments[0]!r} printed over {limit_bytes} bytes")
            if time.monotonic() >= until:
                raise EnergyError(f"{arguments[0]!r} took over {timeout_s:.0f} s")
        if not has_ended(process, until - time.monotonic()):
            raise EnergyError(f"{arguments[0]!r} took over {timeout_s:.0f} s")
        if code := end_program(process):
            raise EnergyError(f"{arguments[0]!r} failed with exit code {code}")
    finally:
        end_program(process)
    return output.decode("ascii", "replace")
