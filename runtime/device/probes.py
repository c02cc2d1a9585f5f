"""Read a device's name and processor from its kernel, and measure how fast its storage is read cold.

The files of ``/proc`` and ``/sys`` are read below a ``root``, so that a test can lay out a board's files.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.device.available_memory import FILESYSTEM_ROOT, read_text
from hyps.runtime.device.process_memory import storage_bytes_read
from hyps.runtime.errors import DeviceError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """The cores that this process may use, their kind, and the bytes of the largest cache (0 where that is unknown)."""

    cores: int
    cpu: str
    cache_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProbe:
    """The rate of a sequential read that no cache served, and the size of the file that was read."""

    read_bytes_per_s: int
    file_bytes: int


def board(root: Path = FILESYSTEM_ROOT) -> str | None:
    """Return the firmware's name of the device: ``Raspberry Pi 3 Model B Plus Rev 1.3``."""
    model = read_text(root / "proc/device-tree/model") or _cpu_fields(root).get("Model", "")
    return model.replace("\0", "").strip() or None


def processor(root: Path = FILESYSTEM_ROOT) -> Processor:
    """Return the processor; one of Arm's own kinds by its usual name, such as ``cortex-a53``."""
    fields = _cpu_fields(root)
    part = fields.get("CPU part", "").lower()
    arm = _ARM_CORES.get(part, f"arm part {part}") if fields.get("CPU implementer") == "0x41" and part else ""
    sizes = [read_text(path) for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    caches = [int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] for size in sizes if re.fullmatch(r"\d+[KM]", size)]
    return Processor(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu=arm or fields.get("model name") or platform.machine() or "unknown",
        cache_bytes=max(caches, default=0),
    )


def storage(folder: Path, most_bytes: int = _FILE_BYTES) -> StorageProbe:
    """Write a file of ``most_bytes`` to ``folder``, drop it from the cache and read it: return the median of three rates.

    The file has no name, so that nothing is left however this ends. Raises `DeviceError` where the folder takes no
    file, and where nothing was read from storage, as with a file system in memory.
    """
    remedy = "give a folder on the device's storage with --folder"
    try:
        free_bytes = shutil.disk_usage(folder).free - _PIECE_BYTES
        if free_bytes < _PIECE_BYTES:
            raise DeviceError(f"{folder} has no room for a file to measure with", f"free 16 MB, or {remedy}")
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            size = _fill(file.fileno(), min(most_bytes, free_bytes))
            before, started = storage_bytes_read(), time.perf_counter()
            rates: list[float] = []
            while not rates or (len(rates) < _PASSES and time.perf_counter() - started < _READ_S):
                done, seconds = _read_cold(file.fileno())
                rates.append(done / seconds)
                if storage_bytes_read() - before < 0.9 * done * len(rates):
                    raise DeviceError(
                        f"reading in {folder} took nothing from storage (it may be in memory, as tmpfs is)", remedy
                    )
    except OSError as error:
        raise DeviceError(f"cannot measure storage in {folder}: {error.strerror}", remedy) from None
    return StorageProbe(read_bytes_per_s=round(statistics.median(rates)), file_bytes=size)


def _fill(file: int, limit_bytes: int) -> int:
    """Write random bytes, which no file system compresses, until the limit or for some seconds; return how many."""
    size, started = 0, time.perf_counter()
    while size + _PIECE_BYTES <= limit_bytes and time.perf_counter() - started < _WRITE_S:
        for _ in range(_PIECE_BYTES // _BLOCK_BYTES):
            block = memoryview(os.urandom(_BLOCK_BYTES))
            while block:
                block = block[os.write(file, block) :]
        os.fsync(file)
        size += _PIECE_BYTES
    return size


def _read_cold(file: int) -> tuple[int, float]:
    """Drop the file's pages from the cache and read it from the start; return bytes and seconds."""
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    block, done, started = bytearray(_BLOCK_BYTES), 0, time.perf_counter()
    while time.perf_counter() - started < _PASS_S and (count := os.preadv(file, [block], done)):
        done += count
    return done, time.perf_counter() - started


def _cpu_fields(root: Path) -> dict[str, str]:
    """Return the fields of ``/proc/cpuinfo``; of a field that every core has, the last core's: fast cores come last."""
    entries = (line.split(":", 1) for line in read_text(root / "proc/cpuinfo").splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in entries}
