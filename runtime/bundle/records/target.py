"""The manifest's records of the device that a bundle was planned for."""

from __future__ import annotations

from typing import Literal

import msgspec

from hyps.runtime.bundle.records.fields import Count, Positive, Record, Version


class PowerRecord(Record, frozen=True, kw_only=True):
    """The power of a device: idle, and with all its ``cores`` busy.

    ``error_milliwatts``: the most by which measured powers differ from the line between the two; absent if not known.
    """

    idle_milliwatts: Count
    busy_milliwatts: Positive
    cores: Positive
    error_milliwatts: Count | None = None


class TargetRecord(Record, frozen=True, kw_only=True):
    """The device that the bundle was planned for, and what its budget allows for.

    That is at most so many ``threads``, and an ``onnxruntime`` that takes as much memory as this version, or less
    (`hyps.runtime.library_memory`). Bundles that name none were planned for 1.31. ``interface``: present where the
    budget allows for no more than onnxruntime's C interface, by which ``hyps-run`` computes pictures. ``power``: present
    where the target's power is known, for an estimate of energy.
    """

    name: str
    threads: Positive
    onnxruntime: Version = "1.31"
    interface: Literal["c"] | msgspec.UnsetType = msgspec.UNSET
    power: PowerRecord | msgspec.UnsetType = msgspec.UNSET

    @property
    def planned_library(self) -> str:
        """The library that the budget allows for, as text."""
        return f"onnxruntime up to {self.onnxruntime}" + (" by its C interface" if self.interface else "")

    @property
    def planned_interface(self) -> Literal["python", "c"]:
        """The interface to onnxruntime whose memory the budget allows for."""
        return self.interface or "python"
