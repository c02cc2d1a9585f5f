"""Measure what a step of a bundle costs besides its multiply-adds: opening a session, running it, and taking memory.

Each figure is the best of the runs within a moment, as in `hyps.runtime.calibration.rates`. Sessions are opened and run
while the processor's caches hold other data.
"""

from __future__ import annotations

import itertools
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.calibration.baseline import FILES
from hyps.runtime.calibration.rates import best_s
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.session import open_session
from hyps.runtime.execution.weight_buffers import WeightBuffer

#: A depthwise convolution of MobileNetV2: 96 channels of 56 x 56.
_DEPTHWISE_INPUT, _DEPTHWISE_WEIGHT = (1, 96, 56, 56), (96, 1, 3, 3)
DEPTHWISE_MACS = 96 * 3 * 3 * 56 * 56
#: The operators of the graph ``chain``.
CHAIN_OPERATORS = 24
_COPIED_BYTES, _PIECE_BYTES = 32 << 20, 4 << 20
_MEASURE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """The costs of steps, and the rates of memory.

    ``memory_bytes_per_s`` counts bytes read and bytes written. ``cached_read_bytes_per_s`` is the rate of mapping a file
    that the system has in memory. ``fresh_bytes_per_s`` is the rate at which it finds, clears and takes back pages of 4 KiB.
    ``open_us`` is the time to open and release a session of one operator, ``open_node_us`` what each further operator adds,
    ``step_us`` the time to run a session whose operators take none.
    """

    depthwise_macs_per_s: int
    memory_bytes_per_s: int
    cached_read_bytes_per_s: int
    fresh_bytes_per_s: int
    open_us: int
    open_node_us: int
    step_us: int


def step_costs(threads: int) -> StepCosts:
    """Measure them on this device with ``threads`` threads, in about two seconds."""
    feeds = {"x": np.full(_DEPTHWISE_INPUT, 0.5, np.float32), "w": np.full(_DEPTHWISE_WEIGHT, 0.5, np.float32)}
    depthwise = DEPTHWISE_MACS / best_s("depthwise", feeds, threads)
    source, copy = np.full(_COPIED_BYTES, 1, np.uint8), np.full(_COPIED_BYTES, 2, np.uint8)
    memory = 2 * _COPIED_BYTES / _best_s(lambda: np.copyto(copy, source))
    evict = partial(np.copyto, copy, source)  # as a bundle's other steps do between two runs of one
    one, many = (_best_s(partial(_opened, graph, threads)) for graph in ("gemm", "chain"))
    opening = _best_s(partial(_opened, "gemm", threads), evict)
    pixel = np.ones((1, 1, 1, 1), np.float32)
    session, values = _opened("chain", threads), {"x": pixel, "w": pixel}
    return StepCosts(
        depthwise_macs_per_s=round(depthwise),
        memory_bytes_per_s=round(memory),
        cached_read_bytes_per_s=round(_cached_read_bytes_per_s(copy)),
        fresh_bytes_per_s=_fresh_bytes_per_s(),
        open_us=max(1, round(1e6 * opening)),
        open_node_us=max(1, round(1e6 * (many - one) / (CHAIN_OPERATORS - 1))),
        step_us=max(1, round(1e6 * _best_s(lambda: session.run(["y"], values), evict))),
    )


def _cached_read_bytes_per_s(content: NDArray[np.uint8]) -> float:
    """Return the rate at which a file that the system has in memory is mapped and given back, as weights are.

    Pieces are taken in turn, so that the next one is seldom in the processor's cache, and the fastest counts.
    """
    buffer = WeightBuffer(content.nbytes, huge=False)
    with os.fdopen(os.memfd_create("hyps-calibrate"), "wb", buffering=0) as file:
        file.write(content.data)
        buffer.map_file(file.fileno(), 0)
    starts = itertools.cycle(range(0, content.nbytes, _PIECE_BYTES))

    def read() -> None:
        start = next(starts)
        buffer.populate(start, start + _PIECE_BYTES)
        buffer.release(start)

    return _PIECE_BYTES / _best_s(read)


def _fresh_bytes_per_s() -> int:
    """Return the rate of taking small pages and giving them back: by the time that filling new memory takes longer."""
    filling = np.full(_PIECE_BYTES, 1, np.uint8)
    taken = mmap.mmap(-1, _PIECE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            taken.madvise(mmap.MADV_NOHUGEPAGE)

    def fill() -> None:
        np.copyto(np.frombuffer(taken, np.uint8), filling)

    def take() -> None:
        taken.madvise(mmap.MADV_DONTNEED)
        fill()

    again, anew = _best_s(fill), _best_s(take)
    return round(_PIECE_BYTES / max(anew - again, anew / 10))


def _opened(graph: str, threads: int) -> Session:
    return open_session(FILES / f"{graph}.onnx", threads, {}, reuse_memory=True, optimize=True)


def _best_s(act: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Return the seconds of the fastest run, each after `prepare`; the first does not count."""
    act()
    best, until = float("inf"), time.perf_counter() + _MEASURE_S
    while best == float("inf") or time.perf_counter() < until:
        prepare()
        started = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - started)
    return best
