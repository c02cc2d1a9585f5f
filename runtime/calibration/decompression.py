"""Measure how fast a device decompresses weights."""

from __future__ import annotations

import os
import time

import numpy as np

from hyps.runtime.bundle.compression import compressed_frame, frame_compressor
from hyps.runtime.bundle.records.files import FRAME_BYTES
from hyps.runtime.errors import LibraryError
from hyps.runtime.execution.frame_decoder import FrameDecoder

#: Together larger than a small processor's caches: in a bundle, frames come from storage and go to memory.
_FRAMES = 16
_MEASURE_S = 0.4


def decompression_bytes_per_s() -> int | None:
    """Return the bytes of weights a second that one thread decompresses; None where zstandard is not installed.

    The figure is the best of the runs within half a second (see `hyps.runtime.calibration.rates`).
    """
    try:
        compressor = frame_compressor()
    except LibraryError:
        return None
    plain = [_float32_weights(FRAME_BYTES) for _ in range(_FRAMES)]
    stored = [compressed_frame(compressor, each, 4) for each in plain]
    decoder, target = FrameDecoder(), memoryview(bytearray(_FRAMES * FRAME_BYTES))
    best, until = float("inf"), time.perf_counter() + _MEASURE_S
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        for index, each in enumerate(stored):
            decoder.stored[: len(each)] = each
            decoder.decode(len(each), 4, target[index * FRAME_BYTES :][:FRAME_BYTES])
        best = min(best, time.perf_counter() - started)
    return round(len(target) / best)


def _float32_weights(nbytes: int) -> bytes:
    """Return numbers with random mantissas, and exponents about as frequent as in trained weights."""
    parts = np.frombuffer(os.urandom(nbytes * 3 // 2), np.int16).reshape(3, -1).astype(np.float32)
    return bytes((parts[0] + parts[1]) * (100_000 + parts[2]))
