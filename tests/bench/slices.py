"""A share of a processor for a process, and the memory and storage of a small board: control groups of our own.

Cgroup v2's or v1's processor quota; the limits of memory and of what is read from the disk need v1, as in `throttled`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
#: Short, so that a quota makes a process slow, and not stop and go.
_PERIOD_US = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A part of this machine: a share of one core, bytes of memory (cached files included), a storage rate; or all.

    The share is given out every ``period_us``. ``weight`` is against other processes for a core, where 1024 is usual; it
    needs cgroup v1.
    """

    share: float
    memory_bytes: int | None = None
    read_bytes_per_s: int | None = None
    period_us: int = _PERIOD_US
    weight: int | None = None


class Slice:
    """The groups of one process."""

    def __init__(self, name: str, limits: Limits, folder: Path) -> None:
        self._settings: dict[Path, dict[str, str]] = {}
        period_us = limits.period_us
        quota_us = int(limits.share * period_us)
        if (_GROUPS / "cgroup.controllers").exists():
            self._settings[_GROUPS / name] = {"cpu.max": f"{quota_us} {period_us}"}
        else:
            settings = {"cpu.cfs_period_us": str(period_us), "cpu.cfs_quota_us": str(quota_us)}
            settings |= {"cpu.shares": str(limits.weight)} if limits.weight else {}
            self._settings[_GROUPS / "cpu" / name] = settings
        if limits.memory_bytes:
            self._settings[_GROUPS / "memory" / name] = {"memory.limit_in_bytes": str(limits.memory_bytes)}
        if limits.read_bytes_per_s:
            device = folder.stat().st_dev
            rule = f"{os.major(device)}:{os.minor(device)} {limits.read_bytes_per_s}"
            self._settings[_GROUPS / "blkio" / name] = {"blkio.throttle.read_bps_device": rule}

    def make(self) -> None:
        """Raises `OSError` where there are no such groups, or it is forbidden."""
        for group, settings in self._settings.items():
            group.mkdir()
            for name, value in settings.items():
                (group / name).write_text(value)

    def take(self, pid: int) -> None:
        """From now on the process has these limits, and what it starts."""
        for group in self._settings:
            (group / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """When its process has ended."""
        for group in self._settings:
            with suppress(OSError):
                group.rmdir()


@contextmanager
def limited(board: str, limits: Limits, folder: Path) -> Iterator[Slice]:
    """A slice for a board whose files lie in ``folder``. Raises `OSError` where there can be none."""
    made = Slice(f"hyps-bench-{os.getpid()}-{board}", limits, folder)
    try:
        made.make()
        yield made
    finally:
        made.remove()
