"""VGG16 on boards that are each a small share of a processor: one worker against three.

On loopback: what a kernel does for a packet on virtual links is charged to whoever sends, up to half of a small share. The
workers enter their control groups when all is loaded: a quota is coarser than what they measure of themselves at first, and
some would take themselves for faster than others. So what the manager expects is of workers at full speed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyps.runtime.execution.engine import in_memory, run_one
from tests.bench.clusters import mosquitto
from tests.bench.slices import Limits, limited
from tests.bench.throttled import forget
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices

#: Three workers leave the second core to the hub, the manager and the client.
SHARE = 0.25
#: A microSD card.
READ_BYTES_PER_S = 22_000_000
CACHE_BYTES = 60_000_000
_WAIT_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What kind of workers: bytes for the process, and whether storage and memory of the board are limited, too."""

    label: str
    memory_bytes: int
    small: bool
    images: int

    @property
    def limits(self) -> Limits:
        """As control groups, which the workers enter when all is loaded: a small board caches 60 MB of files besides."""
        if self.small:
            memory_bytes = self.memory_bytes + CACHE_BYTES
            return Limits(share=SHARE, memory_bytes=memory_bytes, read_bytes_per_s=READ_BYTES_PER_S)
        return Limits(share=SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Seconds of one image alone (the best of two), images a second of a stream, and what the manager expected."""

    label: str
    workers: int
    latency_s: float
    per_s: float
    expected: str


BOARDS = (
    Board(label="all weights stay in memory", memory_bytes=900_000_000, small=False, images=12),
    Board(label="320 MB, 22 MB/s of storage", memory_bytes=320_000_000, small=True, images=4),
)


def speeds(folder: Path, bundle: Path) -> Iterator[Speed]:
    """Raises `OSError` where there are no control groups."""
    for board in BOARDS:
        for count in (1, 3):
            yield _speed(folder, bundle, board, count)


def _speed(folder: Path, bundle: Path, board: Board, count: int) -> Speed:
    place = folder / f"speed-{count}"
    place.mkdir()
    workers = [f"w{number}" for number in range(count)]
    generator = np.random.default_rng(8)
    with ExitStack() as stack:
        slices = {worker: stack.enter_context(limited(worker, board.limits, place)) for worker in workers}
        devices = Devices(stack, place, bundle, BIN, mosquitto())
        devices.start_hub()
        devices.start_manager("--workers", str(count))
        for worker in workers:
            devices.start_worker(worker, memory=f"{board.memory_bytes // 10**6}MB")
        devices.wait_for_sub_bundles(workers=count)
        forget(place)
        for worker, own in slices.items():
            own.take(devices.processes[worker].pid)
        engine = stack.enter_context(closing(devices.engine()))
        (name,) = engine.manifest.inputs
        shape = engine.manifest.tensors[name].shape
        images = [{name: generator.standard_normal(shape, dtype=np.float32)} for _ in range(board.images)]
        seconds = []
        for image in images[:3]:
            started = time.perf_counter()
            run_one(engine, image)
            seconds.append(time.perf_counter() - started)
        answered = [time.perf_counter() for _ in engine.run(in_memory(images))]
        expected = [line for line in devices.log("manager").splitlines() if "an inference" in line][-1]
    shutil.rmtree(place)
    return Speed(
        label=board.label,
        workers=count,
        latency_s=min(seconds[1:]),
        per_s=(len(answered) - 1) / (answered[-1] - answered[0]),
        expected=expected.partition(": ")[2],
    )
