"""What the planner needs to know of a machine to estimate how long a step takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyps.passes.calibration import calibrated, calibrated_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRates:
    """What the runtime's process holds there by itself, rates in bytes and multiply-adds (macs) a second, seconds a step.

    The defaults stand for an unknown device: see ``calibration.toml``. Only the ratios decide where a model is cut.
    """

    #: The peak of ``hyps-run`` while it starts: what it imports, before it gives back the pages of code that ran once.
    start_bytes: int = calibrated_bytes("start_bytes")
    #: Resident bytes of ``hyps-run`` and its libraries from then on, without weights and activations.
    process_bytes: int = calibrated_bytes("process_bytes")
    #: What decoding pictures adds: Pillow and its decoders.
    images_bytes: int = calibrated_bytes("images_bytes")
    #: Memory that the system has for its file cache beside the process; unknown: as much as it takes.
    cache_bytes: float = math.inf
    #: Sequential reading of weights that are not in memory.
    storage_bytes_per_s: float = calibrated("storage_bytes_per_s")
    #: Convolutions, and products of several rows.
    conv_macs_per_s: float = calibrated("conv_macs_per_s")
    #: A product of one row: it is bound by reading its weights from memory.
    gemv_bytes_per_s: float = calibrated("gemv_bytes_per_s")
    #: Operators that only move bytes, and copying what crosses a cut.
    memory_bytes_per_s: float = calibrated("memory_bytes_per_s")
    #: A step without work: open the session, run it, release it.
    step_s: float = calibrated("step_s")
