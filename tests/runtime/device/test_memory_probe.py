"""A child process takes the memory and may be killed for it; this process takes none."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hyps.runtime.device import memory_probe
from hyps.runtime.device.memory_probe import PIECE_BYTES, obtainable_bytes
from hyps.runtime.errors import DeviceError
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")


def test_what_there_is_can_be_had() -> None:
    assert obtainable_bytes(4 * PIECE_BYTES + 5) == 4 * PIECE_BYTES
    assert obtainable_bytes(PIECE_BYTES - 1) == 0


def test_it_is_really_resident() -> None:
    """The child's own peak is read when it holds everything."""
    script = """
import os
from hyps.runtime.device.process_memory import memory
from hyps.runtime.device.memory_probe import PIECE_BYTES, take
before = memory().peak_bytes
take(16 * PIECE_BYTES, os.open(os.devnull, os.O_WRONLY))
print(memory().peak_bytes - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert 15 * PIECE_BYTES < int(done.stdout) < 19 * PIECE_BYTES


def test_memory_that_is_refused_is_not_counted() -> None:
    script = """
import resource
from hyps.runtime.device.memory_probe import PIECE_BYTES, obtainable_bytes
resource.setrlimit(resource.RLIMIT_AS, (64 * PIECE_BYTES, 64 * PIECE_BYTES))
print(obtainable_bytes(100 * PIECE_BYTES) // PIECE_BYTES)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert 0 < int(done.stdout) < 64


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(memory_probe, "_COMMAND", (sys.executable, "-c", script))


def test_a_child_that_is_killed_tells_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, f"import os; os.write(1, b'....'); os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert obtainable_bytes(100 * PIECE_BYTES) == 3 * PIECE_BYTES


def test_a_child_that_cannot_offer_itself_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import pathlib
from hyps.runtime.device.memory_probe import probe_main
def refused(*arguments): raise PermissionError
pathlib.Path.write_text = refused
probe_main()
"""
    child(monkeypatch, script)
    with pytest.raises(DeviceError, match="oom_score_adj cannot be set; leave out --test-memory"):
        obtainable_bytes(PIECE_BYTES)


def test_it_stops_where_the_device_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "from hyps.runtime.device import memory_probe; memory_probe._STALL_S = 0; memory_probe.probe_main()")
    assert obtainable_bytes(100 * PIECE_BYTES) == 0


def test_the_child_is_the_first_to_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import sys
from hyps.runtime.device import memory_probe
def take(wanted, output):
    sys.stdout.write("." * (1 + int(open("/proc/self/oom_score_adj").read())))
memory_probe.take = take
memory_probe.probe_main()
"""
    child(monkeypatch, script)
    assert obtainable_bytes(1) == 1000 * PIECE_BYTES
