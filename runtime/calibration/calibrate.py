"""Carry out ``hyps-run calibrate``: measure this device, write it as a target for ``hypsc compile --target``, and report."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hyps.runtime.calibration.measurements import measure, measuring_stages
from hyps.runtime.calibration.target_file import Calibration, calibration, printable_path, toml_text
from hyps.runtime.device.link_rates import HubMeasurements
from hyps.runtime.errors import OutputError
from hyps.runtime.io.files import replacing
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.units import megabytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def calibrate(
    output: Path,
    name: str | None,
    folder: Path,
    *,
    test_memory: bool = False,
    probe_hub: Callable[[], HubMeasurements] | None = None,
    meter: str | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> Iterable[str]:
    """Measure, write the target file ``output`` and return the lines to print; storage is measured in ``folder``.

    The target's name is the file's, or ``name``. With ``test_memory`` a process takes the available memory once.
    ``probe_hub`` measures the link to a hub and messages, ``meter`` is a command that prints watts. Raises `OutputError`,
    before anything is measured, where the file cannot be written, `EnergyError` for a meter that does not work, and
    `DeviceError` or `HubError` where the device or its link cannot be measured; none leaves a file.
    """
    name = _checked_name(output, name)
    stages = measuring_stages(with_hub=probe_hub is not None)
    with _progress(stages, quiet=quiet) as announce:
        measured = measure(folder, test_memory=test_memory, announce=announce, meter=meter, probe_hub=probe_hub)
    target = calibration(name, measured)
    with replacing(output) as partial:
        partial.write_text(toml_text(target), encoding="utf-8")
    return [_json_line(target, output)] if as_json else _summary(target, measured.rates.conv_by_threads, output)


def _checked_name(output: Path, name: str | None) -> str:
    """Return the target's name. Raise `OutputError` unless ``hypsc`` takes it and the file can be written."""
    if output.suffix != ".toml" or output.is_dir():
        problem = f"--output {str(output)!r} is not the name of a target file"
        raise OutputError(problem, "give one that ends in .toml")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        why = "cannot be written to" if output.parent.is_dir() else "is no folder"
        raise OutputError(f"cannot write {output}: {output.parent} {why}", "give another place with --output")
    chosen = output.stem if name is None else name
    if not _NAME.match(chosen):
        problem = f"{chosen!r} cannot be a target's name"
        rule = "use up to 64 letters, digits, '.', '_' and '-', a letter or digit first"
        raise OutputError(problem, rule + (", with --name" if name is None else ""))
    return chosen


def _summary(target: Calibration, conv_by_threads: Mapping[int, int], output: Path) -> Iterable[str]:
    """Yield the lines of a table for people, and the next command."""
    by_threads = ", ".join(f"{count}: {rate / 1e9:.1f}" for count, rate in conv_by_threads.items())
    rows = [
        ("memory", megabytes(target.available_bytes), f"available of {megabytes(target.memory_bytes)}"),
        ("runtime", megabytes(target.process_bytes), "of it, before any network"),
        ("with pictures", megabytes(target.process_images_bytes), "the same, having decoded a photograph"),
        ("storage", f"{megabytes(target.storage_read_bytes_per_s)}/s", "read cold"),
        ("threads", f"{target.threads}", f"the fastest of 1 to {target.cores}"),
        ("Conv", f"{target.conv_macs_per_s / 1e9:.1f} G/s", f"multiply-adds; by threads {by_threads}"),
        ("Gemm", f"{target.gemm_macs_per_s / 1e9:.1f} G/s", "multiply-adds, in cache"),
        ("Gemm, one row", f"{megabytes(target.gemv_bytes_per_s)}/s", "of weights, from memory"),
        ("step", f"{target.step_us / 1e3:.2f} ms", f"and {target.open_us / 1e3:.2f} ms where its session is opened"),
    ]
    if rate := target.decompression_bytes_per_s:
        rows.append(("decompression", f"{megabytes(rate)}/s", "of compressed weights, by one thread"))
    if (up := target.network_up_bytes_per_s) and (down := target.network_down_bytes_per_s):
        latency_ms = (target.network_latency_us or 0) / 1e3
        meaning = f"to the hub; {megabytes(down)}/s from it; {latency_ms:.2f} ms one way (half a round trip)"
        rows.append(("network", f"{megabytes(up)}/s", meaning))
    if target.message_us:
        rows.append(("message", f"{target.message_us / 1e3:.2f} ms", "of the processor, to send one or to receive it"))
    if target.idle_milliwatts is not None and target.busy_milliwatts is not None:
        busy = f"idle; {target.busy_milliwatts / 1e3:.2f} W with all cores busy"
        rows.append(("power", f"{target.idle_milliwatts / 1e3:.2f} W", busy))
    yield target.title
    for figure, value, meaning in rows:
        yield f"  {figure:13}  {value:>14}  {meaning}"
    command = f"hypsc compile MODEL --target {printable_path(output.name)} -o BUNDLE"
    yield f"written to {printable_path(output)}; on your computer: {command}"


def _json_line(target: Calibration, output: Path) -> str:
    fields = {"budget_bytes": target.available_bytes, "file": printable_path(output)}
    return msgspec.json.encode(msgspec.structs.asdict(target) | fields).decode()


@contextmanager
def _progress(stages: Sequence[str], *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being measured, and leave an empty line; show nothing elsewhere."""
    progress = Progress(len(stages), quiet=quiet)

    def announce(stage: str) -> None:
        number = stages.index(stage) + 1
        progress.stage(f"measuring {stage}, {number} of {len(stages)}; it takes 10 to 60 s in all")

    try:
        yield announce
    finally:
        progress.clear()
