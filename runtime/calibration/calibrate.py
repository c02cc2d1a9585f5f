"""``hyps-run calibrate``: measure this device and write it down as a target for ``hypsc compile --target``.

Kaboubi (section 4.2.3.1) loads ever larger layers on a board until one fails, and takes that for the threshold. Here
nothing has to fail: the kernel tells how much memory is free (and a process may try it: `hyps.runtime.device.memory_probe`), the runtime's
own process tells how much of it it needs, and what is left is for the network.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hyps.runtime.device.available_memory import AvailableMemory, available_memory
from hyps.runtime.device.memory_probe import PIECE_BYTES, obtainable_bytes
from hyps.runtime.device.probes import Processor, StorageProbe, board, processor, storage
from hyps.runtime.errors import DeviceError, OutputError
from hyps.runtime.io.files import replacing
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.runtime.calibration.baseline import Baseline
    from hyps.runtime.calibration.rates import Rates

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
#: Memory, storage, compute, the runtime itself.
_STAGES = 4
_NETWORK_NOTE = "# network_bytes_per_s is not measured; if you know it, write it here in bytes a second\n"


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A measured target: the fields, and their units, of the file that `hyps.compiler.targets` describes."""

    name: str
    title: str
    memory_bytes: int
    reserved_bytes: int
    cores: int
    cpu: str
    storage_read_bytes_per_s: int
    process_bytes: int
    process_images_bytes: int
    threads: int
    conv_macs_per_s: int
    gemm_macs_per_s: int
    gemv_bytes_per_s: int
    sources: dict[str, str]


def calibrate(
    output: Path,
    name: str | None,
    folder: Path,
    *,
    test_memory: bool = False,
    as_json: bool = False,
    quiet: bool = False,
) -> Iterable[str]:
    """Measure, write the target file ``output`` and return what to print; storage is measured in ``folder``.

    The target's name is the file's unless ``name`` says otherwise; with ``test_memory`` what is free is really taken once.
    Raises `OutputError` where the file cannot be, before anything is measured, and `DeviceError` where the device does
    not let itself be measured; nothing is left then.
    """
    name = _checked(output, name)
    with _progress(quiet=quiet) as tell:
        tell("memory")
        room = available_memory()  # before this process takes some of it by its imports
        room = tried(room) if test_memory else room
        tell("storage")
        disk = storage(folder)
        from hyps.runtime.calibration.baseline import baseline
        from hyps.runtime.calibration.rates import rates

        tell("compute")
        cores = processor()
        speed = rates(cores.cores, cores.cache_bytes, room.available_bytes)
        tell("the runtime's own memory")
        own = baseline(speed.threads, room.total_bytes)
    found = _calibration(name, folder, room, cores, disk, speed, own)
    with replacing(output) as partial:
        partial.write_text(toml_text(found), encoding="utf-8")
    return [_json_line(found, output)] if as_json else summary(found, speed, output)


def tried(room: AvailableMemory) -> AvailableMemory:
    """The same where a process could take all that is free, or what it could take; raises `DeviceError` if nothing."""
    touched = obtainable_bytes(room.available_bytes)
    if touched == 0:
        raise DeviceError("a process that tried to take the free memory got none: stop what else runs here, then try again")
    if touched + PIECE_BYTES > room.available_bytes:
        return dataclasses.replace(room, bound=f"{room.bound} (a process took all of it)")
    return dataclasses.replace(room, available_bytes=touched, bound="a process that took all it could in a minute")


def origins(path: Path) -> Iterable[str]:
    """Where each figure of a target file is from."""
    return (f"{figure}: {source}" for figure, source in tomllib.loads(path.read_text(encoding="utf-8"))["sources"].items())


def toml_text(found: Calibration) -> str:
    """The target file; `hyps.compiler.targets` reads it."""
    fields = msgspec.structs.asdict(found)
    sources = fields.pop("sources")
    lines = [f"{key} = {_toml_value(value)}\n" for key, value in fields.items()]
    return "".join([*lines, _NETWORK_NOTE, "\n[sources]\n", *(f"{k} = {_toml_value(v)}\n" for k, v in sources.items())])


def summary(found: Calibration, speed: Rates, output: Path) -> Iterable[str]:
    """A table for people."""
    available = found.memory_bytes - found.reserved_bytes
    others = ", ".join(f"{count}: {rate / 1e9:.1f}" for count, rate in speed.conv_by_threads.items())
    rows = [
        ("memory", megabytes(available), f"available of {megabytes(found.memory_bytes)}"),
        ("runtime", megabytes(found.process_bytes), "of it, before any network"),
        ("with pictures", megabytes(found.process_images_bytes), "the same, having decoded a photograph"),
        ("storage", f"{megabytes(found.storage_read_bytes_per_s)}/s", "read cold"),
        ("threads", f"{found.threads}", f"the fastest of 1 to {found.cores}"),
        ("Conv", f"{found.conv_macs_per_s / 1e9:.1f} G/s", f"multiply-adds; by threads {others}"),
        ("Gemm", f"{found.gemm_macs_per_s / 1e9:.1f} G/s", "multiply-adds, in cache"),
        ("Gemm, one row", f"{megabytes(found.gemv_bytes_per_s)}/s", "of weights, from memory"),
    ]
    yield found.title
    for what, value, meaning in rows:
        yield f"  {what:13}  {value:>14}  {meaning}"
    yield f"written to {_shown(output)}; on your computer: hypsc compile MODEL --target {_shown(output.name)} -o BUNDLE"


def _checked(output: Path, name: str | None) -> str:
    """The target's name, when the file can be written and both are such as ``hypsc`` takes."""
    if output.suffix != ".toml" or output.is_dir():
        raise OutputError(f"--output {str(output)!r} is no name of a target file; give one that ends in .toml")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        why = "cannot be written to" if output.parent.is_dir() else "is no folder"
        raise OutputError(f"cannot write {output}: {output.parent} {why}; give another place with --output")
    chosen = output.stem if name is None else name
    if not _NAME.match(chosen):
        raise OutputError(
            f"{chosen!r} cannot be a target's name: use up to 64 letters, digits, '.', '_' and '-', a letter or digit first"
            + (", with --name" if name is None else "")
        )
    return chosen


def _calibration(
    name: str, folder: Path, room: AvailableMemory, cores: Processor, disk: StorageProbe, speed: Rates, own: Baseline
) -> Calibration:
    import onnxruntime as ort

    from hyps.runtime.calibration.baseline import PHOTOGRAPH_SIZE

    stamp = (
        f"measured by hyps-run calibrate on {datetime.datetime.now().astimezone().date()}, kernel {platform.release()}, "
        f"onnxruntime {ort.__version__}"
    )
    width, height = PHOTOGRAPH_SIZE
    tried = ", ".join(f"{count}: {rate / 1e9:.2f}" for count, rate in speed.conv_by_threads.items())
    sources = {
        "memory": "MemTotal of /proc/meminfo: without what firmware and kernel keep",
        "reserved": f"MemTotal less what {room.bound} leaves, with all that ran then",
        "cores": "those that the process may use",
        "storage": f"cold sequential read of {disk.file_bytes / 1e6:.0f} MB in {_shown(folder.absolute())}",
        "process": f"VmHWM of hyps-run on a tiny network, on a tensor and on a picture of {width} x {height}",
        "threads": f"1e9 multiply-adds a second of the Conv by threads: {tried}",
        "compute": "best runs of a 3x3 Conv, 128 to 128 channels over 28 x 28; a Gemm of 256 x 256 x 256; a Gemm of one row "
        f"over {speed.gemv_weight_bytes / 1e6:.0f} MB",
    }
    return Calibration(
        name=name,
        title=board() or f"{cores.cpu}, {cores.cores} core{'s' if cores.cores > 1 else ''}",
        memory_bytes=room.total_bytes,
        reserved_bytes=room.total_bytes - room.available_bytes,
        cores=cores.cores,
        cpu=cores.cpu,
        storage_read_bytes_per_s=disk.read_bytes_per_s,
        process_bytes=own.process_bytes,
        process_images_bytes=own.process_images_bytes,
        threads=speed.threads,
        conv_macs_per_s=speed.conv_macs_per_s,
        gemm_macs_per_s=speed.gemm_macs_per_s,
        gemv_bytes_per_s=speed.gemv_bytes_per_s,
        sources={key: f"{what}; {stamp}" for key, what in sources.items()},
    )


def _toml_value(value: str | int) -> str:
    """A number with its digits grouped, or a basic string: JSON's escapes are TOML's, except that it must escape DEL."""
    if isinstance(value, int):
        return f"{value:_}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(path: Path | str) -> str:
    """A path as text that any file or terminal takes: names of files may hold bytes that are no UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def _json_line(found: Calibration, output: Path) -> str:
    fields = {"budget_bytes": found.memory_bytes - found.reserved_bytes, "file": _shown(output)}
    return msgspec.json.encode(msgspec.structs.asdict(found) | fields).decode()


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being measured, and leave an empty line; on anything else say nothing."""
    progress = Progress(_STAGES, quiet=quiet)
    numbers = iter(range(1, _STAGES + 1))
    try:
        yield lambda what: progress.stage(f"measuring {what}, {next(numbers)} of {_STAGES}; it takes 10 to 30 s in all")
    finally:
        progress.clear()
