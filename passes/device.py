"""Describe a machine for the planner: the memory of its runtime process, and its speeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.runtime.library_memory import COSTLIEST, Interface, library_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRates:
    """A machine: bytes that the runtime process needs without a model, and speeds.

    Rates are bytes or multiply-adds (macs) per second. The defaults stand for an unknown device: see ``calibration.toml``
    and `hyps.runtime.library_memory`. Only the ratios of the speeds decide where a model is cut.
    """

    #: The version of onnxruntime (its first two numbers) that the next two figures are for.
    onnxruntime: str = COSTLIEST
    #: The interface to it that they are for.
    interface: Interface = "python"

    #: The peak of ``hyps-run`` while it starts: all imports, before it gives back the pages of code that runs only once.
    start_bytes: int = library_memory(COSTLIEST).start_bytes
    #: Resident bytes of ``hyps-run`` and its libraries after the start, without weights and activations.
    process_bytes: int = library_memory(COSTLIEST).process_bytes
    #: Bytes that decoding photographs adds: Pillow and its decoders.
    images_bytes: int = calibrated_bytes("images_bytes")
    #: Bytes that the process and the system's file cache have together; infinite where that is not known.
    available_bytes: float = math.inf
    #: Sequential reads of weights that are not in memory.
    storage_bytes_per_s: float = calibrated("storage_bytes_per_s")
    #: Decompression of weights that are stored compressed, on one core; counted in decompressed bytes.
    decompression_bytes_per_s: float = calibrated("decompression_bytes_per_s")
    #: The part of their bytes that weights take in storage: below 1 where they are compressed.
    stored_part: float = 1.0
    #: Convolutions, and products of several rows.
    conv_macs_per_s: float = calibrated("conv_macs_per_s")
    #: A product of one row, which is bound by reading its weights from memory.
    gemv_bytes_per_s: float = calibrated("gemv_bytes_per_s")
    #: Operators that only move bytes, and copies of tensors that cross a cut.
    memory_bytes_per_s: float = calibrated("memory_bytes_per_s")
    #: Mapping a file that the system has in memory; None: as fast as reading it.
    cached_read_bytes_per_s: float | None = None
    #: Depthwise convolutions.
    depthwise_macs_per_s: float = calibrated("depthwise_macs_per_s")
    #: Writing to memory that the system has not given to the process yet.
    fresh_bytes_per_s: float = calibrated("fresh_pages_bytes_per_s")
    #: Sending tensors to another device: gigabit Ethernet, 94.1 % of it payload, where that is not known.
    network_bytes_per_s: float = 117_600_000
    #: Seconds to open a session, and more for each of its operators.
    open_s: float = calibrated("open_s")
    open_node_s: float = calibrated("open_node_s")
    #: Seconds of a step whose session is open, besides computing.
    step_s: float = calibrated("step_s")

    def opening_s(self, operators: int) -> float:
        """Return the seconds to open a session of a number of operators, and to release it."""
        return self.open_s + self.open_node_s * operators

    def with_interface(self, interface: Interface) -> Self:
        """Return this machine with another interface to onnxruntime; figures that were measured change by the difference."""
        found, own = (library_memory(self.onnxruntime, each) for each in (interface, self.interface))
        return replace(
            self,
            interface=interface,
            start_bytes=self.start_bytes + found.start_bytes - own.start_bytes,
            process_bytes=self.process_bytes + found.process_bytes - own.process_bytes,
        )

    @property
    def weights_bytes_per_s(self) -> float:
        """The rate at which weights come from storage into memory."""
        return self._decompressed(self.storage_bytes_per_s / self.stored_part)

    @property
    def cached_weights_bytes_per_s(self) -> float:
        """The rate at which weights come from the file cache into memory."""
        return self._decompressed(self.cached_read_bytes_per_s or self.memory_bytes_per_s)

    @property
    def compresses_weights(self) -> bool:
        """Whether weights are stored compressed."""
        return self.stored_part < 1

    def _decompressed(self, bytes_per_s: float) -> float:
        return min(bytes_per_s, self.decompression_bytes_per_s) if self.compresses_weights else bytes_per_s

    def with_compressed_weights(self) -> Self:
        """Return this machine with compressed weights; itself where its storage reads as fast as it decompresses."""
        if self.storage_bytes_per_s >= self.decompression_bytes_per_s:
            return self
        more_bytes = calibrated_bytes("decompressor_bytes")
        return replace(
            self,
            stored_part=calibrated("compressed_part"),
            start_bytes=self.start_bytes + more_bytes,
            process_bytes=self.process_bytes + more_bytes,
        )

    def with_onnxruntime(self, version: str) -> Self:
        """Return this machine with another version of onnxruntime. Raises `ValueError` for text that is no version."""
        found, own = (library_memory(each, self.interface) for each in (version, self.onnxruntime))
        return replace(
            self,
            onnxruntime=found.version,
            start_bytes=self.start_bytes + found.start_bytes - own.start_bytes,
            process_bytes=self.process_bytes + found.process_bytes - own.process_bytes,
        )
