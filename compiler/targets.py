"""Define target profiles: the memory, cores and rates of a device, as a TOML file describes them.

To describe your own device, run ``hyps-run calibrate -o my-board.toml`` on it, which measures these figures. Or save the
output of ``hypsc targets show NAME`` to a file that ends in ``.toml`` and change the figures. Pass the file's path in place
of a target's name::

    name = "my-board"                   # letters, digits, '.', '_' and '-'; appears in reports and in the bundle
    title = "My board"                  # for people
    memory_bytes = 1_073_741_824        # all memory, in bytes: 1 GiB
    reserved_bytes = 251_658_240        # of it, for firmware, kernel and operating system, in bytes; may be 0
    cores = 4                           # processor cores
    cpu = "cortex-a53"                  # the cores' kind
    storage_read_bytes_per_s = 22_000_000   # sequential read, bytes a second

    # All of these are optional: leave out what was not measured. Of the last twenty-two, built-in targets have
    # the two powers alone.
    network_bytes_per_s = 11_760_000        # payload, bytes a second (not bits)
    process_bytes = 53_000_000              # resident bytes (VmHWM) of a hyps-run process with its libraries that ran a
                                            # tiny session on a tensor: the runtime without a network
    process_images_bytes = 57_000_000       # the same where Pillow decoded one photograph of 640 x 480 pixels
    onnxruntime = "1.32.0"                  # the version of onnxruntime with which these two were measured
    threads = 4                             # the number of threads with which a convolution is fastest
    conv_macs_per_s = 9_000_000_000         # multiply-adds a second of a 3x3 Conv (128 channels), with these threads
    one_thread_conv_macs_per_s = 2_600_000_000  # the same with one thread
    gemm_macs_per_s = 12_000_000_000        # the same of a matrix-matrix Gemm (256 x 256 x 256) in the caches
    gemv_bytes_per_s = 2_500_000_000        # weight bytes a second of a Gemm of one row (transB = 1) over weights larger
                                            # than the caches, in memory: bound by the memory, not by the processor
    depthwise_macs_per_s = 400_000_000      # multiply-adds a second of a depthwise 3x3 Conv (96 channels)
    memory_bytes_per_s = 2_000_000_000      # bytes read and written a second while memory is copied
    cached_read_bytes_per_s = 900_000_000   # bytes mapped a second of a file that the system has in memory
    fresh_bytes_per_s = 500_000_000         # bytes a second of small pages that the system finds and clears for a process
    open_us = 3_000                         # microseconds to open a session of one operator
    open_node_us = 200                      # microseconds that each further operator of a session adds to that
    step_us = 800                           # microseconds to run a session whose operators take no time
    decompression_bytes_per_s = 150_000_000 # bytes a second that compressed weights become in memory, by one core
    network_up_bytes_per_s = 11_760_000     # bytes a second to the hub, and from the hub
    network_down_bytes_per_s = 11_760_000
    network_latency_us = 250                # microseconds of a small message to the hub, or from it
    message_us = 400                        # microseconds of the processor to send a message, or to receive it
    idle_milliwatts = 1_400                 # the board's power without work, and with all cores busy: for estimates of
    busy_milliwatts = 3_700                 # energy where nothing measures it; give both or neither
    power_error_milliwatts = 150            # the most by which measured powers differ from the line between the two

    [sources]                           # optional in your own file: the source of each figure
    memory = "product brief"            # also: reserved, cores, storage, network, process (both), threads, compute (rates),
                                        # steps, decompression, power (all three)

Figures are whole numbers; ``_`` may group digits. ``memory_bytes - reserved_bytes`` is the default budget. To find it
on a running Linux device, take ``MemAvailable`` of ``/proc/meminfo`` (in KiB) when idle; the rest is reserved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from hyps.passes.device import DeviceRates
from hyps.runtime.bundle.records.target import PowerRecord
from hyps.runtime.library_memory import BEFORE_NAMED, short_version

#: The spread of the process's peak while it starts, measured on x86-64.
START_SPREAD_BYTES = 2_000_000
#: Memory of decoders and buffers for other kinds of pictures than the one that calibration decodes.
DECODERS_BYTES = 3_000_000
#: Figures that must be above 0 if they are given.
_POSITIVE = (
    "memory_bytes",
    "cores",
    "storage_read_bytes_per_s",
    "network_bytes_per_s",
    "process_bytes",
    "process_images_bytes",
    "threads",
    "conv_macs_per_s",
    "one_thread_conv_macs_per_s",
    "gemm_macs_per_s",
    "gemv_bytes_per_s",
    "depthwise_macs_per_s",
    "memory_bytes_per_s",
    "cached_read_bytes_per_s",
    "fresh_bytes_per_s",
    "open_us",
    "open_node_us",
    "step_us",
    "decompression_bytes_per_s",
    "network_up_bytes_per_s",
    "network_down_bytes_per_s",
    "network_latency_us",
    "message_us",
    "idle_milliwatts",
    "busy_milliwatts",
)

TargetName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=64)]
TargetText = Annotated[str, msgspec.Meta(min_length=1)]


class Sources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The source of each figure of a target; empty if the file does not say."""

    memory: str = ""
    reserved: str = ""
    cores: str = ""
    storage: str = ""
    network: str = ""
    process: str = ""
    threads: str = ""
    compute: str = ""
    steps: str = ""
    decompression: str = ""
    power: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device profile; fields and units are those of the file, described above. None: it was not measured.

    Raises `ValueError` if a figure is not positive (``reserved_bytes`` may be 0), or if all memory is reserved.
    """

    name: TargetName
    title: TargetText
    memory_bytes: int
    reserved_bytes: int
    cores: int
    cpu: TargetText
    storage_read_bytes_per_s: int
    network_bytes_per_s: int | None = None
    process_bytes: int | None = None
    process_images_bytes: int | None = None
    onnxruntime: str = BEFORE_NAMED
    threads: int | None = None
    conv_macs_per_s: int | None = None
    one_thread_conv_macs_per_s: int | None = None
    gemm_macs_per_s: int | None = None
    gemv_bytes_per_s: int | None = None
    depthwise_macs_per_s: int | None = None
    memory_bytes_per_s: int | None = None
    cached_read_bytes_per_s: int | None = None
    fresh_bytes_per_s: int | None = None
    open_us: int | None = None
    open_node_us: int | None = None
    step_us: int | None = None
    decompression_bytes_per_s: int | None = None
    network_up_bytes_per_s: int | None = None
    network_down_bytes_per_s: int | None = None
    network_latency_us: int | None = None
    message_us: int | None = None
    idle_milliwatts: int | None = None
    busy_milliwatts: int | None = None
    power_error_milliwatts: int | None = None
    sources: Sources = Sources()

    def __post_init__(self) -> None:
        for field in _POSITIVE:
            if (value := getattr(self, field)) is not None and value <= 0:
                raise ValueError(f"{field} is {value}; write a number above 0")
        short_version(self.onnxruntime)
        if self.reserved_bytes < 0:
            raise ValueError(f"reserved_bytes is {self.reserved_bytes}; write 0 or more")
        if self.reserved_bytes >= self.memory_bytes:
            raise ValueError(
                f"reserved_bytes is {self.reserved_bytes}, which leaves nothing of memory_bytes, {self.memory_bytes}; "
                "write less"
            )
        if (self.idle_milliwatts is None) != (self.busy_milliwatts is None):
            raise ValueError("idle_milliwatts and busy_milliwatts belong together; give both or neither")
        if self.idle_milliwatts and self.busy_milliwatts and self.busy_milliwatts < self.idle_milliwatts:
            raise ValueError(f"busy_milliwatts is {self.busy_milliwatts}, less than idle_milliwatts, {self.idle_milliwatts}")
        if (self.power_error_milliwatts or 0) < 0:
            raise ValueError(f"power_error_milliwatts is {self.power_error_milliwatts}; write 0 or more")

    def device_rates(self, threads: int | None = None) -> DeviceRates:
        """Return the rates that the planner needs, with this number of ``threads``; by default with the fastest number.

        Figures that the file leaves out are those of an unknown device.
        """
        default, part = DeviceRates(), self._computing_part(threads)
        rates = DeviceRates(
            available_bytes=self.budget_bytes,
            storage_bytes_per_s=self.storage_read_bytes_per_s,
            decompression_bytes_per_s=self.decompression_bytes_per_s or default.decompression_bytes_per_s,
            conv_macs_per_s=part * (self.conv_macs_per_s or default.conv_macs_per_s),
            gemv_bytes_per_s=self.gemv_bytes_per_s or default.gemv_bytes_per_s,
            depthwise_macs_per_s=part * (self.depthwise_macs_per_s or default.depthwise_macs_per_s),
            memory_bytes_per_s=self.memory_bytes_per_s or default.memory_bytes_per_s,
            cached_read_bytes_per_s=self.cached_read_bytes_per_s,
            network_bytes_per_s=self.network_down_bytes_per_s or self.network_bytes_per_s or default.network_bytes_per_s,
            fresh_bytes_per_s=self.fresh_bytes_per_s or default.fresh_bytes_per_s,
            open_s=self.open_us / 1e6 if self.open_us else default.open_s,
            open_node_s=self.open_node_us / 1e6 if self.open_node_us else default.open_node_s,
            step_s=self.step_us / 1e6 if self.step_us else default.step_s,
        )
        if self.process_bytes is not None:
            rates = replace(
                rates,
                onnxruntime=short_version(self.onnxruntime),
                process_bytes=self.process_bytes,
                start_bytes=self.process_bytes + START_SPREAD_BYTES,
            )
            if self.process_images_bytes is not None:
                pictures = self.process_images_bytes - self.process_bytes
                rates = replace(rates, images_bytes=max(0, pictures) + DECODERS_BYTES)
        return rates

    def _computing_part(self, threads: int | None) -> float:
        """Return how fast convolutions are with fewer threads than the fastest number, as a part of the fastest rate."""
        if not (threads and self.threads and self.conv_macs_per_s and self.one_thread_conv_macs_per_s):
            return 1.0
        one = min(1.0, self.one_thread_conv_macs_per_s / self.conv_macs_per_s)
        return 1.0 if threads >= self.threads else one + (1 - one) * (threads - 1) / (self.threads - 1)

    @property
    def power(self) -> PowerRecord | None:
        """The powers that a bundle's manifest carries to the runtime, or None where they are not known."""
        if self.idle_milliwatts is None or self.busy_milliwatts is None:
            return None
        return PowerRecord(
            idle_milliwatts=self.idle_milliwatts,
            busy_milliwatts=self.busy_milliwatts,
            cores=self.cores,
            error_milliwatts=self.power_error_milliwatts,
        )

    @property
    def is_measured(self) -> bool:
        """The computing rates were measured on the device, so that times are estimated from its own figures alone."""
        return self.conv_macs_per_s is not None and self.gemv_bytes_per_s is not None

    @property
    def budget_bytes(self) -> int:
        """The default budget: bytes that the whole runtime process may hold resident."""
        return self.memory_bytes - self.reserved_bytes
