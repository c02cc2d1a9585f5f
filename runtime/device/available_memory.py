"""Read how much memory a new process can have: what the kernel and the process's control groups leave it.

The files of ``/proc`` and ``/sys`` are read below a ``root``, so that a test can lay out a board's files.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.errors import DeviceError

FILESYSTEM_ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableMemory:
    """The device's memory, how much of it a new process can have without displacing others, and what limits that."""

    total_bytes: int
    available_bytes: int
    bound: str


def available_memory(root: Path = FILESYSTEM_ROOT) -> AvailableMemory:
    """Return what ``/proc/meminfo`` says is available, or less where a control group allows this process less.

    Raises `DeviceError` where the kernel is not Linux, or has no ``MemAvailable`` (before 3.14).
    """
    values = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE))
    if len(values) != 2:
        raise DeviceError("/proc/meminfo has no MemTotal and MemAvailable", "run this on the device, under Linux")
    total, available = int(values["MemTotal"]) * 1024, int(values["MemAvailable"]) * 1024
    limits = [(available, "MemAvailable of /proc/meminfo"), *_group_limits(root)]
    lowest, bound = min(limits, key=lambda entry: entry[0])
    if not 0 < lowest < total:
        problem = f"{max(lowest, 0)} bytes of memory are available according to {bound}"
        raise DeviceError(problem, "stop other programs here, then try again")
    return AvailableMemory(total_bytes=total, available_bytes=lowest, bound=bound)


def _group_limits(root: Path) -> list[tuple[int, str]]:
    """Return, for each control group of this process that has a limit, the bytes it may still take and the limit's file.

    Pages of files that were not used lately count as free: the kernel drops them first. A group of version 2 is
    ``0::PATH`` in ``/proc/self/cgroup``, one of version 1 ``N:...memory...:PATH``; a container sees its own as the root.
    """
    limits = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        relative = Path(path.lstrip("/"))
        for folder in (mount / relative, *(mount / parent for parent in relative.parents)):
            limit, usage = (read_text(folder / name) for name in names)
            if limit.isdecimal() and usage.isdecimal():  # no limit reads 'max' in version 2
                idle = re.findall(r"^(?:total_)?inactive_file (\d+)$", read_text(folder / "memory.stat"), re.MULTILINE)
                limits.append((int(limit) - int(usage) + max(map(int, idle), default=0), str(folder / names[0])))
    return limits


def read_text(path: Path) -> str:
    """Return a kernel file's text; empty where it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
