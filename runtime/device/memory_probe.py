"""Whether the memory that is said to be free can really be had: a child process takes it, and may fail at it.

That is Kaboubi's own way to find a board's threshold (section 4.2.3.1, load more until it fails), made safe: the child first
offers itself as the one to be killed when memory runs out, and gives up by itself when the device begins to stall.
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
#: A piece takes milliseconds, a second where other processes compute; beyond that the kernel makes room from others' pages.
_STALL_S, _LIMIT_S = 3.0, 60.0
_COMMAND = (sys.executable, "-P", "-c", "from hyps.runtime.device.memory_probe import main; main()")


def obtainable_bytes(wanted_bytes: int) -> int:
    """How much of ``wanted_bytes`` a process of its own can write to and hold at once, in whole pieces of 4 MiB.

    Raises `DeviceError` where the child cannot make itself the first to be killed: nothing is taken then.
    """
    with subprocess.Popen(
        [*_COMMAND, str(wanted_bytes)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            said = child.stdout.read() if child.stdout else b""
        finally:
            child.kill()
    if not said:
        raise DeviceError("memory is not tested: /proc/self/oom_score_adj cannot be set; leave out --test-memory")
    return (len(said) - 1) * PIECE_BYTES


def probe_main() -> None:
    """The child: write a byte to standard output when ready, and one for every piece it holds."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return
    take(int(sys.argv[1]), sys.stdout.fileno())


def take(wanted_bytes: int, output: int) -> None:
    """Hold piece after piece until all is held, the kernel refuses, or the device stalls.

    The pieces hold random bytes: pages of zeros, and what compresses, would cost a device with zram next to nothing.
    """
    content = os.urandom(PIECE_BYTES)
    held: list[mmap.mmap] = []
    os.write(output, b".")
    began = time.perf_counter()
    while len(held) < wanted_bytes // PIECE_BYTES:
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
