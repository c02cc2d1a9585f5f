"""Cold and storage-bound: VGG16 where the storage is slow and the file cache too small, in control groups of our own.

A group of the blkio controller bounds what is read a second from the disk that the folder lies on, one of the memory
controller what processes and their cached files hold together. Both need cgroup v1 and the right to make groups: without
them there is no table, and the reason is said.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

READ_BYTES_PER_S = 60_000_000
#: For a batch: to this machine what a microSD card of 22 MB/s is to a board whose processor is 14 times slower.
BATCH_READ_BYTES_PER_S = 300_000_000
MEMORY_BYTES = 300_000_000
ROUNDS = 3
#: ``hyps-run``, which tells at the end what it made the kernel read.
_COUNTED = """
from hyps.runtime.cli import main
from hyps.runtime.process import storage_bytes_read
try:
    main()
finally:
    print(storage_bytes_read())
"""
_GROUPS = Path("/sys/fs/cgroup")
_NAME = f"hyps-bench-{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """One contender: bytes read from storage and seconds of an inference that follows another (medians), peak bytes."""

    label: str
    read_bytes: int
    seconds: float
    peak_bytes: int


def race(contenders: dict[str, list[str]], folder: Path) -> Iterator[Slow]:
    """Run each contender (arguments of `tests.bench.worker`) by itself, from a cold cache."""
    with _groups(folder, READ_BYTES_PER_S) as enter:
        for label, arguments in contenders.items():
            forget(folder)
            command = ["sh", "-c", f'{enter}; exec "$@"', "sh", sys.executable, "-m", "tests.bench.worker", *arguments]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
                said = [_run(worker) for _ in range(ROUNDS + 1)]
                assert worker.stdin
                worker.stdin.close()
            yield Slow(
                label=label,
                read_bytes=int(statistics.median(each["read_bytes"] for each in said[1:])),
                seconds=statistics.median(each["run_s"] for each in said[1:]),
                peak_bytes=int(said[-1]["peak_bytes"]),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowBatch:
    """A batch by the command: seconds of the whole process and of its computing alone, bytes read, peak bytes."""

    images: int
    seconds: float
    compute_s: float
    read_bytes: int
    peak_bytes: int


def batch(bundle: Path, inputs: Path) -> SlowBatch:
    """Run ``hyps-run`` on a folder of inputs, all in one batch, from a cold cache."""
    images = len(list(inputs.iterdir()))
    command = [sys.executable, "-c", _COUNTED, bundle, inputs, "--batch", str(images), "--threads", "1", "--json"]
    with _groups(bundle, BATCH_READ_BYTES_PER_S) as enter:
        forget(bundle)
        started = time.perf_counter()
        done = subprocess.run(
            ["sh", "-c", f'{enter}; exec "$@"', "sh", *map(str, command)], check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - started
    *said, read_bytes = map(json.loads, done.stdout.splitlines())
    return SlowBatch(
        images=images,
        seconds=seconds,
        compute_s=sum(line["latency_s"] for line in said),
        read_bytes=read_bytes,
        peak_bytes=max(line["peak_rss_bytes"] for line in said),
    )


def _run(worker: subprocess.Popen[str]) -> dict[str, float]:
    assert worker.stdin and worker.stdout
    worker.stdin.write("run\n")
    worker.stdin.flush()
    answer: dict[str, float] = json.loads(worker.stdout.readline())
    return answer


@contextmanager
def _groups(folder: Path, read_bytes_per_s: int) -> Iterator[str]:
    """Groups with both limits; yields the shell commands by which a process enters them. Raises `OSError` if forbidden."""
    device = folder.stat().st_dev
    disk = f"{os.major(device)}:{os.minor(device)}"
    limits = {
        _GROUPS / "blkio" / _NAME: ("blkio.throttle.read_bps_device", f"{disk} {read_bytes_per_s}"),
        _GROUPS / "memory" / _NAME: ("memory.limit_in_bytes", str(MEMORY_BYTES)),
    }
    try:
        for group, (name, value) in limits.items():
            group.mkdir()
            (group / name).write_text(value)
        yield "; ".join(f"echo $$ > {group}/cgroup.procs" for group in limits)
    finally:
        for group in limits:
            with suppress(OSError):
                group.rmdir()


def forget(folder: Path) -> None:
    """Have the kernel drop the folder's files from its cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
