"""Measure how fast a device computes: run the smallest Conv and Gemm graphs with the options of a bundle's sessions.

Each figure is the best of the runs within a second or so: a slower run was disturbed by another program (the reasoning of
Python's ``timeit``). The graphs' weights are inputs; `hyps.models.calibration_graphs` builds them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hyps.runtime.calibration.baseline import FILES
from hyps.runtime.execution.session import session_options

#: A 3x3 convolution, 128 to 128 channels over 28 x 28: VGG16's and ResNet's middle.
_CONV_INPUT, _CONV_WEIGHT = (1, 128, 28, 28), (128, 128, 3, 3)
CONV_MACS = 128 * 128 * 3 * 3 * 28 * 28
#: Two factors and a product of 256 KB each.
_GEMM_SIDE = 256
GEMM_MACS = _GEMM_SIDE**3
_GEMV_COLUMNS = 4096
#: The weights are this many times the largest cache, so that almost none of them are left in it for the next run.
_CACHES = 4
_LEAST_WEIGHT_BYTES, _MOST_WEIGHT_BYTES, _UNKNOWN_CACHE_BYTES = 16 << 20, 256 << 20, 16 << 20
_ROUNDS, _MEASURE_S = 3, 0.4
#: More threads must gain this much: each costs memory, and power.
_GAIN = 1.03

Feeds = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The compute rates with the fastest number of threads, and the Conv's rate for every number that was tried.

    ``gemv`` is the Gemm of one row, whose weights have ``gemv_weight_bytes``.
    """

    threads: int
    conv_macs_per_s: int
    gemm_macs_per_s: int
    gemv_bytes_per_s: int
    gemv_weight_bytes: int
    conv_by_threads: Mapping[int, int]


def rates(cores: int, cache_bytes: int, available_bytes: int) -> Rates:
    """Measure with 1 to ``cores`` threads; the memory-bound Gemm takes a quarter of ``available_bytes`` at most."""
    by_threads = conv_by_threads(thread_counts(cores))
    threads = fastest(by_threads)
    square = np.full((_GEMM_SIDE, _GEMM_SIDE), 0.5, np.float32)
    gemm = GEMM_MACS / best_s("gemm", {"x": square, "w": square}, threads)
    row = np.full((1, _GEMV_COLUMNS), 0.5, np.float32)
    rows = gemv_weight_bytes(cache_bytes, available_bytes) // 4 // _GEMV_COLUMNS
    weights = np.full((rows, _GEMV_COLUMNS), 0.5, np.float32)  # not zeros: their pages would all be one page
    gemv = weights.nbytes / best_s("gemm", {"x": row, "w": weights}, threads)
    return Rates(
        threads=threads,
        conv_macs_per_s=by_threads[threads],
        gemm_macs_per_s=round(gemm),
        gemv_bytes_per_s=round(gemv),
        gemv_weight_bytes=weights.nbytes,
        conv_by_threads=by_threads,
    )


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return the numbers of threads to try: each up to four, then doubling, and all cores."""
    doubling = [4 << shift for shift in range(cores.bit_length())]
    return tuple(sorted({count for count in (1, 2, 3, *doubling, cores) if count <= cores}))


def conv_by_threads(counts: tuple[int, ...], rounds: int = _ROUNDS) -> dict[int, int]:
    """Return the Conv's multiply-adds a second by number of threads; all run in turn, so that a disturbance hits all."""
    feeds = {"x": np.full(_CONV_INPUT, 0.5, np.float32), "w": np.full(_CONV_WEIGHT, 0.5, np.float32)}
    seconds = dict.fromkeys(counts, float("inf"))
    for _ in range(rounds):
        for count in counts:
            seconds[count] = min(seconds[count], best_s("conv", feeds, count))
    return {count: round(CONV_MACS / best) for count, best in seconds.items()}


def fastest(rate_by_threads: Mapping[int, int]) -> int:
    """Return the fewest threads that are within 3 % of the best."""
    enough = max(rate_by_threads.values()) / _GAIN
    return min(count for count, rate in rate_by_threads.items() if rate >= enough)


def gemv_weight_bytes(cache_bytes: int, available_bytes: int) -> int:
    """Return the size of a weight that fits in memory, and is read from there and not from a cache."""
    uncached = _CACHES * (cache_bytes or _UNKNOWN_CACHE_BYTES)
    return min(max(_LEAST_WEIGHT_BYTES, uncached), _MOST_WEIGHT_BYTES, max(available_bytes // 4, _LEAST_WEIGHT_BYTES))


def best_s(graph: str, feeds: Feeds, threads: int) -> float:
    """Return the seconds of the fastest run; the first does not count, as it uses its memory for the first time."""
    session: Any = ort.InferenceSession(FILES / f"{graph}.onnx", session_options(threads), ["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    best, until = float("inf"), time.perf_counter() + _MEASURE_S
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        session.run(None, dict(feeds))
        best = min(best, time.perf_counter() - started)
    return best
