"""What a device is and has, from its kernel: processor, memory that is free, and how fast its storage is read cold.

The files of ``/proc`` and ``/sys`` are read below a ``root``, so that tests can lay out a board's.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.errors import DeviceError
from hyps.runtime.process import storage_bytes_read

#: Arm's own cores by the part number in ``/proc/cpuinfo`` (Arm's technical reference manuals, register MIDR_EL1).
_ARM_CORES = {
    "0xb76": "arm1176",
    "0xc07": "cortex-a7",
    "0xc08": "cortex-a8",
    "0xc09": "cortex-a9",
    "0xc0f": "cortex-a15",
    "0xd03": "cortex-a53",
    "0xd04": "cortex-a35",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd09": "cortex-a73",
    "0xd0a": "cortex-a75",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd0d": "cortex-a77",
    "0xd40": "neoverse-v1",
    "0xd41": "cortex-a78",
    "0xd42": "cortex-a78ae",
    "0xd49": "neoverse-n2",
    "0xd4f": "neoverse-v2",
}
_FILE_BYTES, _PIECE_BYTES, _BLOCK_BYTES = 64 << 20, 4 << 20, 1 << 20
_WRITE_S, _PASS_S, _READ_S, _PASSES = 8.0, 5.0, 2.0, 3
_ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """The cores this process may use, their kind, and the bytes of the largest cache (0: the kernel does not tell)."""

    cores: int
    cpu: str
    cache_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRoom:
    """All memory, how much of it a new process can have without pushing others out, and what bounds that."""

    total_bytes: int
    available_bytes: int
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Bytes a second of a sequential read that no cache served, and how many bytes were read at a time."""

    read_bytes_per_s: int
    file_bytes: int


def board(root: Path = _ROOT) -> str | None:
    """What the firmware calls the device: ``Raspberry Pi 3 Model B Plus Rev 1.3``."""
    model = _read(root / "proc/device-tree/model") or _cpu_fields(root).get("Model", "")
    return model.replace("\0", "").strip() or None


def processor(root: Path = _ROOT) -> Processor:
    """The processor; a kind of Arm's by its usual name, such as ``cortex-a53``."""
    fields = _cpu_fields(root)
    part = fields.get("CPU part", "").lower()
    arm = _ARM_CORES.get(part, f"arm part {part}") if fields.get("CPU implementer") == "0x41" and part else ""
    sizes = [_read(path) for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    caches = [int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] for size in sizes if re.fullmatch(r"\d+[KM]", size)]
    return Processor(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu=arm or fields.get("model name") or platform.machine() or "unknown",
        cache_bytes=max(caches, default=0),
    )


def memory_room(root: Path = _ROOT) -> MemoryRoom:
    """What ``/proc/meminfo`` says is available, or less where a control group allows this process less.

    Raises `DeviceError` where the kernel is not Linux, or tells no ``MemAvailable`` (before 3.14).
    """
    values = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE))
    if len(values) != 2:
        raise DeviceError("/proc/meminfo does not tell MemTotal and MemAvailable: calibrate on the device, under Linux")
    total, available = int(values["MemTotal"]) * 1024, int(values["MemAvailable"]) * 1024
    rooms = [(available, "MemAvailable of /proc/meminfo"), *_group_rooms(root)]
    room, bound = min(rooms, key=lambda entry: entry[0])
    if not 0 < room < total:
        raise DeviceError(f"{max(room, 0)} bytes of memory are free by {bound}: stop what else runs here, then try again")
    return MemoryRoom(total_bytes=total, available_bytes=room, bound=bound)


def _group_rooms(root: Path) -> list[tuple[int, str]]:
    """For each control group with a limit that holds this process: bytes it may still have, and the limit's file.

    Pages of files that were not used lately count as free: the kernel drops them first. A group of version 2 is
    ``0::PATH`` in ``/proc/self/cgroup``, one of version 1 ``N:...memory...:PATH``; a container sees its own as the root.
    """
    rooms = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        relative = Path(path.lstrip("/"))
        for folder in (mount / relative, *(mount / parent for parent in relative.parents)):
            limit, usage = (_read(folder / name) for name in names)
            if limit.isdecimal() and usage.isdecimal():  # no limit reads 'max' in version 2
                idle = re.findall(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
                rooms.append((int(limit) - int(usage) + max(map(int, idle), default=0), str(folder / names[0])))
    return rooms


def storage(folder: Path) -> Storage:
    """Write a file to ``folder``, have the kernel forget it and read it block by block: the median of three passes.

    The file has no name, so that nothing is left however this ends. Raises `DeviceError` where the folder takes no
    file, and where no storage was read, as with a file system in memory.
    """
    mend = "give a folder on the device's storage with --folder"
    try:
        room = shutil.disk_usage(folder).free - _PIECE_BYTES
        if room < _PIECE_BYTES:
            raise DeviceError(f"{folder} has no room for a file to measure with: free 16 MB, or {mend}")
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            size = _fill(file.fileno(), min(_FILE_BYTES, room))
            before, started = storage_bytes_read(), time.perf_counter()
            rates: list[float] = []
            while not rates or (len(rates) < _PASSES and time.perf_counter() - started < _READ_S):
                done, seconds = _read_cold(file.fileno())
                rates.append(done / seconds)
                if storage_bytes_read() - before < 0.9 * done * len(rates):
                    raise DeviceError(
                        f"reading in {folder} took nothing from storage (it may be held in memory, as tmpfs is): {mend}"
                    )
    except OSError as error:
        raise DeviceError(f"cannot measure storage in {folder}: {error.strerror}; {mend}") from None
    return Storage(read_bytes_per_s=round(statistics.median(rates)), file_bytes=size)


def _fill(file: int, limit_bytes: int) -> int:
    """Write random bytes, which no file system compresses, until the limit or for some seconds; returns how many."""
    size, started = 0, time.perf_counter()
    while size + _PIECE_BYTES <= limit_bytes and time.perf_counter() - started < _WRITE_S:
        piece = memoryview(os.urandom(_PIECE_BYTES))
        while piece:
            piece = piece[os.write(file, piece) :]
        os.fsync(file)
        size += _PIECE_BYTES
    return size


def _read_cold(file: int) -> tuple[int, float]:
    """Read from the start, after the kernel forgot the pages; returns bytes and seconds."""
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    block, done, started = bytearray(_BLOCK_BYTES), 0, time.perf_counter()
    while time.perf_counter() - started < _PASS_S and (count := os.preadv(file, [block], done)):
        done += count
    return done, time.perf_counter() - started


def _cpu_fields(root: Path) -> dict[str, str]:
    """``/proc/cpuinfo``; of a field that every core has, the last core's (the fast ones come last on boards)."""
    entries = (line.split(":", 1) for line in _read(root / "proc/cpuinfo").splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in entries}


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
