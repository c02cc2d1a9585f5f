"""Test whether memory reported as available can really be taken: a child process takes it, and may fail.

Kaboubi finds a board's threshold in this way (section 4.2.3.1: load more until it fails). Here it is safe: the child first
makes itself the one to be killed when memory runs out, and it gives up when the device begins to stall.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from hyps.runtime.errors import DeviceError

PIECE_BYTES = 4 << 20
#: A piece takes milliseconds, or a second where other processes compute; longer means that the kernel evicts others' pages.
_STALL_S, _LIMIT_S = 3.0, 60.0
_COMMAND = (sys.executable, "-P", "-c", "from hyps.runtime.device.memory_probe import probe_main; probe_main()")


def obtainable_bytes(most_bytes: int) -> int:
    """Return how much of ``most_bytes`` a child process can write to and hold at once, in whole pieces of 4 MiB.

    Raises `DeviceError` where the child cannot make itself the first to be killed; it takes nothing then.
    """
    with subprocess.Popen(
        [*_COMMAND, str(most_bytes)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            answer = child.stdout.read() if child.stdout else b""
        finally:
            child.kill()
    if not answer:
        raise DeviceError("memory is not tested: /proc/self/oom_score_adj cannot be set", "leave out --test-memory")
    return (len(answer) - 1) * PIECE_BYTES


def probe_main() -> None:
    """Run the child: write a byte to standard output when ready, and one for every piece that it holds."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return
    take(int(sys.argv[1]), sys.stdout.fileno())


def take(most_bytes: int, output: int) -> None:
    """Take piece after piece until all is held, the kernel refuses, or the device stalls.

    The pieces hold random bytes: zeros, and whatever compresses well, would cost a device with zram almost nothing.
    """
    content = os.urandom(PIECE_BYTES)
    held: list[mmap.mmap] = []
    os.write(output, b".")
    began = time.perf_counter()
    while len(held) < most_bytes // PIECE_BYTES:
        started = time.perf_counter()
        try:
            piece = mmap.mmap(-1, PIECE_BYTES)
        except OSError:
            return
        piece.write(content)
        held.append(piece)
        now = time.perf_counter()
        if now - started > _STALL_S or now - began > _LIMIT_S:
            return
        os.write(output, b".")
