"""What the planner needs to know of a machine to estimate how long a step takes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the runtime's process holds there by itself, rates in bytes and multiply-adds (macs) a second, seconds a step.

    The defaults stand for an unknown device. They were measured on the x86-64 machine of DESIGN.md section 5 with one
    thread (3x3 and 1x1 convolutions, a product of one row, a Relu, a session of one small operator); storage is a stated
    guess, a good SD card's sequential read rate. Only the ratios decide where a model is cut.
    """

    #: The peak of ``hyps-run`` while it starts: what it imports, before it gives back the pages of code that ran once.
    start_bytes: int = 59_500_000
    #: Resident bytes of ``hyps-run`` and its libraries from then on, without weights and activations.
    process_bytes: int = 53_500_000
    #: What decoding pictures adds: Pillow and its decoders.
    images_bytes: int = 7_000_000
    #: Memory that the system has for its file cache beside the process; unknown: as much as it takes.
    cache_bytes: float = math.inf
    #: Sequential reading of weights that are not in memory.
    storage_bytes_per_s: float = 80e6
    #: Convolutions, and products of several rows.
    conv_macs_per_s: float = 100e9
    #: A product of one row: it is bound by reading its weights from memory.
    gemv_bytes_per_s: float = 20e9
    #: Operators that only move bytes, and copying what crosses a cut.
    memory_bytes_per_s: float = 10e9
    #: A step without work: open the session, run it, release it.
    step_s: float = 1e-3
