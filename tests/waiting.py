"""Wait for events in tests, with one generous limit: a test fails for what a process does, never for its speed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

#: Seconds until a test calls a process hung. With two other jobs on two cores, tests took six times as long as alone.
PATIENCE_S = 300


def wait_for(what: str | Callable[[], str], condition: Callable[[], object]) -> None:
    """Return when ``condition`` holds; fail with ``what``, or what it returns then, if it does not within `PATIENCE_S`."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE_S} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.01)


def signal_while(process: subprocess.Popen[Any], number: signal.Signals, condition: Callable[[], object]) -> bool:
    """Send a signal while ``condition`` holds, and return True; return False if the process ends without that.

    The process is stopped while the condition is looked at, so that it cannot pass by before the signal arrives.
    """
    while process.poll() is None:
        if condition():
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            holds = condition()
            if holds:
                process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            if holds:
                return True
        time.sleep(0.001)
    return False
