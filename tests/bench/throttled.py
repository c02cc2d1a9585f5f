"""Storage that is slow and a file cache that is too small, in control groups of our own; and files that are cold.

A group of the blkio controller bounds what is read a second from the disk that a folder lies on, one of the memory
controller what processes and their cached files hold together. Both need cgroup v1 and the right to make groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.readings import Skipped

_GROUPS = Path("/sys/fs/cgroup")
_NAME = f"hyps-bench-{os.getpid()}"


@contextmanager
def throttled(folder: Path, *, read_bytes_per_s: int, memory_bytes: int) -> Iterator[list[str]]:
    """Groups with both limits; yields the command through which a process enters them.

    Raises `Skipped` where they cannot be made.
    """
    device = folder.stat().st_dev
    disk = f"{os.major(device)}:{os.minor(device)}"
    limits = {
        _GROUPS / "blkio" / _NAME: ("blkio.throttle.read_bps_device", f"{disk} {read_bytes_per_s}"),
        _GROUPS / "memory" / _NAME: ("memory.limit_in_bytes", str(memory_bytes)),
    }
    try:
        for group, (name, value) in limits.items():
            try:
                group.mkdir()
                (group / name).write_text(value)
            except OSError as error:
                raise Skipped(f"no slow storage here: control groups (cgroup v1) cannot be made: {error}") from error
        enter = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in limits)
        yield ["sh", "-c", f'{enter}; exec "$@"', "sh"]
    finally:
        for group in limits:
            with suppress(OSError):
                group.rmdir()


def forget(*places: Path) -> None:
    """Have the kernel drop files, or all files of folders, from its cache; it keeps what a process has mapped."""
    os.sync()
    for path in _files(places):
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(*places: Path) -> None:
    """Have the kernel hold files, or all files of folders, in its cache, as far as there is room."""
    block = bytearray(1 << 20)
    for path in _files(places):
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass


def _files(places: Iterable[Path]) -> Iterator[Path]:
    return (path for place in places for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file())
