"""How fast a device computes: the smallest Conv and Gemm graphs, run under the options of a bundle's sessions.

Each figure is the best of the runs within a second or so: what is slower was disturbed by something else that ran
(the reasoning of Python's ``timeit``). The graphs' weights are inputs; `hyps.models.calibration_graphs` builds them.
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
#: So many times the largest cache, so that next to nothing of the weights is left in it from one run to the next.
_CACHES = 4
_LEAST_WEIGHT_BYTES, _MOST_WEIGHT_BYTES, _UNKNOWN_CACHE_BYTES = 16 << 20, 256 << 20, 16 << 20
_ROUNDS, _MEASURE_S = 3, 0.4
#: More threads must gain this much: each costs memory, and power.
_GAIN = 1.03

Feeds = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Multiply-adds and weight bytes a second with the fastest number of threads; Conv's for every number tried.

    ``gemv_weight_bytes`` is the size of the weights of the Gemm of one row.
    """

    threads: int
    conv_macs_per_s: int
    gemm_macs_per_s: int
    gemv_bytes_per_s: int
    gemv_weight_bytes: int
    conv_by_threads: Mapping[int, int]


def rates(cores: int, cache_bytes: int, room_bytes: int) -> Rates:
    """Measure with 1 to ``cores`` threads; the memory-bound Gemm takes a quarter of ``room_bytes`` at most."""
    by_threads = conv_by_threads(thread_counts(cores))
    threads = fastest(by_threads)
    square = np.full((_GEMM_SIDE, _GEMM_SIDE), 0.5, np.float32)
    gemm = GEMM_MACS / best_s("gemm", {"x": square, "w": square}, threads)
    row = np.full((1, _GEMV_COLUMNS), 0.5, np.float32)
    # Written to, every value: pages of zeros would all be the same one.
    weights = np.full((gemv_weight_bytes(cache_bytes, room_bytes) // 4 // _GEMV_COLUMNS, _GEMV_COLUMNS), 0.5, np.float32)
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
    """Which numbers of threads to try: every one up to four, then doubling, and all cores."""
    doubling = [4 << shift for shift in range(cores.bit_length())]
    return tuple(sorted({count for count in (1, 2, 3, *doubling, cores) if count <= cores}))


def conv_by_threads(counts: tuple[int, ...], rounds: int = _ROUNDS) -> dict[int, int]:
    """Multiply-adds a second of the convolution by number of threads, all in turn, so that a disturbance hits all."""
    feeds = {"x": np.full(_CONV_INPUT, 0.5, np.float32), "w": np.full(_CONV_WEIGHT, 0.5, np.float32)}
    seconds = dict.fromkeys(counts, float("inf"))
    for _ in range(rounds):
        for count in counts:
            seconds[count] = min(seconds[count], best_s("conv", feeds, count))
    return {count: round(CONV_MACS / best) for count, best in seconds.items()}


def fastest(rate_by_threads: Mapping[int, int]) -> int:
    """The fewest threads that are within 3 % of the best."""
    enough = max(rate_by_threads.values()) / _GAIN
    return min(count for count, rate in rate_by_threads.items() if rate >= enough)


def gemv_weight_bytes(cache_bytes: int, room_bytes: int) -> int:
    """How large a weight is read from memory and not from a cache, and fits there."""
    wanted = _CACHES * (cache_bytes or _UNKNOWN_CACHE_BYTES)
    return min(max(_LEAST_WEIGHT_BYTES, wanted), _MOST_WEIGHT_BYTES, max(room_bytes // 4, _LEAST_WEIGHT_BYTES))


def best_s(graph: str, feeds: Feeds, threads: int) -> float:
    """Seconds of the fastest run; the first, which touches memory for the first time, does not count."""
    session: Any = ort.InferenceSession(FILES / f"{graph}.onnx", session_options(threads), ["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    best, until = float("inf"), time.perf_counter() + _MEASURE_S
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        session.run(None, dict(feeds))
        best = min(best, time.perf_counter() - started)
    return best
