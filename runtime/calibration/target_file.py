"""Write the measurements of a device as a target file, which `hyps.compiler.target_files` reads."""

from __future__ import annotations

import datetime
import json
import os
import platform
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hyps.runtime.calibration.measurements import DeviceMeasurements

_NETWORK_NOTE = (
    "# network_bytes_per_s is not measured; measure it with --hub, or if you know it, write it here in bytes a second\n"
)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a target file: its fields, one to one, with the units that `hyps.compiler.targets` describes."""

    name: str
    title: str
    memory_bytes: int
    reserved_bytes: int
    cores: int
    cpu: str
    storage_read_bytes_per_s: int
    process_bytes: int
    process_images_bytes: int
    onnxruntime: str
    threads: int
    conv_macs_per_s: int
    one_thread_conv_macs_per_s: int
    gemm_macs_per_s: int
    gemv_bytes_per_s: int
    depthwise_macs_per_s: int
    memory_bytes_per_s: int
    cached_read_bytes_per_s: int
    fresh_bytes_per_s: int
    open_us: int
    open_node_us: int
    step_us: int
    decompression_bytes_per_s: int | None
    network_bytes_per_s: int | None = None
    network_up_bytes_per_s: int | None = None
    network_down_bytes_per_s: int | None = None
    network_latency_us: int | None = None
    message_us: int | None = None
    idle_milliwatts: int | None
    busy_milliwatts: int | None
    power_error_milliwatts: int | None
    sources: dict[str, str]

    @property
    def available_bytes(self) -> int:
        """The memory that a bundle's process may have: its budget."""
        return self.memory_bytes - self.reserved_bytes


def calibration(name: str, measured: DeviceMeasurements) -> Calibration:
    """Return the target called ``name`` with the measured figures and their sources."""
    import onnxruntime as ort

    cores, memory, rates, power = measured.processor, measured.memory, measured.rates, measured.power
    error_watts, link = power.error_watts if power else None, measured.hub.link if measured.hub else None
    return Calibration(
        name=name,
        title=measured.board or f"{cores.cpu}, {cores.cores} core{'s' if cores.cores > 1 else ''}",
        memory_bytes=memory.total_bytes,
        reserved_bytes=memory.total_bytes - memory.available_bytes,
        cores=cores.cores,
        cpu=cores.cpu,
        storage_read_bytes_per_s=measured.storage.read_bytes_per_s,
        process_bytes=measured.baseline.process_bytes,
        process_images_bytes=measured.baseline.process_images_bytes,
        onnxruntime=ort.__version__,
        threads=rates.threads,
        conv_macs_per_s=rates.conv_macs_per_s,
        one_thread_conv_macs_per_s=rates.conv_by_threads[1],
        gemm_macs_per_s=rates.gemm_macs_per_s,
        gemv_bytes_per_s=rates.gemv_bytes_per_s,
        depthwise_macs_per_s=measured.steps.depthwise_macs_per_s,
        memory_bytes_per_s=measured.steps.memory_bytes_per_s,
        cached_read_bytes_per_s=measured.steps.cached_read_bytes_per_s,
        fresh_bytes_per_s=measured.steps.fresh_bytes_per_s,
        open_us=measured.steps.open_us,
        open_node_us=measured.steps.open_node_us,
        step_us=measured.steps.step_us,
        decompression_bytes_per_s=measured.decompression_bytes_per_s,
        network_bytes_per_s=min(link.up_bytes_per_s, link.down_bytes_per_s) if link else None,
        network_up_bytes_per_s=link.up_bytes_per_s if link else None,
        network_down_bytes_per_s=link.down_bytes_per_s if link else None,
        network_latency_us=max(1, round(1e6 * link.latency_s)) if link else None,
        message_us=max(1, round(1e6 * measured.hub.message_s)) if measured.hub and measured.hub.message_s else None,
        idle_milliwatts=max(1, round(power.idle_watts * 1e3)) if power else None,
        busy_milliwatts=max(1, round(power.busy_watts * 1e3)) if power else None,
        power_error_milliwatts=None if error_watts is None else round(error_watts * 1e3),
        sources=_sources(measured),
    )


def toml_text(target: Calibration) -> str:
    """Return the target file's text."""
    fields = {key: value for key, value in msgspec.structs.asdict(target).items() if value is not None}
    sources = fields.pop("sources")
    lines = [f"{key} = {_toml_value(value)}\n" for key, value in fields.items()]
    note = "" if target.network_bytes_per_s else _NETWORK_NOTE
    return "".join([*lines, note, "\n[sources]\n", *(f"{k} = {_toml_value(v)}\n" for k, v in sources.items())])


def origins(path: Path) -> Iterable[str]:
    """Return a line for each figure of a target file: where it is from."""
    sources = tomllib.loads(path.read_text(encoding="utf-8"))["sources"]
    return (f"{figure}: {source}" for figure, source in sources.items())


def printable_path(path: Path | str) -> str:
    """Return a path as text that any file or terminal takes: names of files may hold bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def _sources(measured: DeviceMeasurements) -> dict[str, str]:
    """Return, for each group of figures, how it was measured, on which day and with which software."""
    import onnxruntime as ort

    from hyps.runtime.calibration.baseline import PHOTOGRAPH_SIZE

    stamp = (
        f"measured by hyps-run calibrate on {datetime.datetime.now().astimezone().date()}, kernel {platform.release()}, "
        f"onnxruntime {ort.__version__}"
    )
    width, height = PHOTOGRAPH_SIZE
    by_threads = ", ".join(f"{count}: {rate / 1e9:.2f}" for count, rate in measured.rates.conv_by_threads.items())
    file_mb, weights_mb = measured.storage.file_bytes / 1e6, measured.rates.gemv_weight_bytes / 1e6
    methods: Mapping[str, str] = {
        "memory": "MemTotal of /proc/meminfo: without what firmware and kernel keep",
        "reserved": f"MemTotal less what {measured.memory.bound} leaves, with all that ran then",
        "cores": "those that the process may use",
        "storage": f"cold sequential read of {file_mb:.0f} MB in {printable_path(measured.folder.absolute())}",
        "process": f"VmHWM of hyps-run on a tiny network, on a tensor and on a picture of {width} x {height}",
        "threads": f"1e9 multiply-adds a second of the Conv by threads: {by_threads}",
        "compute": "best runs of a 3x3 Conv, 128 to 128 channels over 28 x 28; a Gemm of 256 x 256 x 256; a Gemm of one row "
        f"over {weights_mb:.0f} MB; a depthwise 3x3 Conv, 96 channels of 56 x 56",
        "steps": "best times to copy memory, to read a cached file, to take and give back pages, to open sessions of 1 and "
        "of 24 operators, to run one",
    }
    if measured.decompression_bytes_per_s:
        methods = {**methods, "decompression": "best run over numbers like float32 weights, one thread"}
    if measured.hub:
        method = (
            "messages through the hub: until it acknowledges them, and until they are back; the lower rate of the two ways"
        )
        methods = {
            **methods,
            "network": f"{method}; latency is half of a round trip of 64 bytes; a message: the "
            "processor's time for tensors that the hub sends back, by the messages that they are worth",
        }
    if power := measured.power:
        by_cores = ", ".join(f"{cores}: {watts:.2f}" for cores, watts in power.watts_by_cores.items())
        methods = {**methods, "power": f"{power.source}, which covers {power.covers}; watts by busy cores: {by_cores}"}
    return {key: f"{method}; {stamp}" for key, method in methods.items()}


def _toml_value(value: str | int) -> str:
    """Return a number with its digits grouped, or a basic string: JSON's escapes are TOML's, but TOML must escape DEL."""
    if isinstance(value, int):
        return f"{value:_}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
