"""What a device must have for the runtime, one check after the other, each with a way to mend what is wrong.

A library is used in a process of its own: a wheel built for another processor ends its process with an illegal instruction
(onnxruntime 1.21.0 on a Raspberry Pi 4: https://github.com/microsoft/onnxruntime/issues/23957). The files of ``/proc`` and
``/sys`` are read below a ``root``, so that tests can lay out a board's.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from hyps.runtime.device.available_memory import AvailableMemory, available_memory, read_text
from hyps.runtime.device.probes import processor, storage
from hyps.runtime.device.process_memory import FIRST_TO_GO, LEAN_ENVIRONMENT
from hyps.runtime.errors import DeviceError, RuntimeFault

#: The least versions, as in pyproject.toml, and what a library must be able to do.
PYTHON = (3, 11)
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "numpy": ("2.0", "import numpy as m; m.ones((9, 9)) @ m.ones((9, 9))"),
    "msgspec": ("0.19", "import msgspec as m; m.json.decode(b'1')"),
    "pillow": ("11", "from PIL import Image as m; m.new('RGB', (9, 9)).resize((4, 4))"),
    "onnxruntime": ("1.23", "import onnxruntime as m; assert 'CPUExecutionProvider' in m.get_available_providers()"),
}
#: Importing onnxruntime took 16 s from the slow card of an emulated Raspberry Pi 3.
_LIMIT_S = 60.0
_UNKNOWN = "of unknown version"
#: Written in a second or two, and read for two at most, by the slowest cards.
_STORAGE_BYTES = 8 << 20
#: What cards of speed class 10, the slowest sold today, are sure of.
_SLOW_BYTES_PER_S = 10_000_000
_CAN_LOCK = 1 << 14  # CAP_IPC_LOCK of capabilities(7)


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, what was found; how to mend it, unless it is ``ok``.

    With ``warn`` networks run, but not as well as they could; with ``FAIL`` they do not.
    """

    check: str
    state: Literal["ok", "warn", "FAIL"]
    found: str
    mend: str = ""


def python_check(release: tuple[int, ...], bits: int) -> Check:
    """Is this Python new enough, and of 64 bits, as onnxruntime's wheels are?"""
    found, least = f"{platform.python_version()}, {bits} bits", ".".join(map(str, PYTHON))
    if bits != 64:
        return Check("python", "FAIL", found, "onnxruntime has wheels for 64 bits alone: install a 64-bit system")
    if release < PYTHON:
        return Check("python", "FAIL", found, f"install Python {least} or newer, and hyps for it")
    return Check("python", "ok", found)


def architecture_check(machine: str) -> Check:
    """Does PyPI have wheels of onnxruntime for this kind of processor?"""
    if machine.lower() in ("x86_64", "amd64", "aarch64", "arm64"):
        return Check("architecture", "ok", machine)
    found = f"{machine}, for which PyPI has no wheel of onnxruntime"
    build = "build it (https://onnxruntime.ai/docs/build/inferencing.html)"
    if machine.startswith("armv7"):
        return Check(
            "architecture", "warn", found, f"install a 64-bit system (the Raspberry Pi 3 and later run it), or {build}"
        )
    return Check("architecture", "warn", found, f"{build}, or take a board with x86_64 or aarch64")


def library_check(name: str, limit_s: float = _LIMIT_S) -> Check:
    """Use a library in a process of its own, which may crash or hang."""
    least, script = LIBRARIES[name]
    try:
        known = f"version {version(name)}"
    except PackageNotFoundError:
        known = _UNKNOWN
    command = [sys.executable, "-P", "-c", f"{FIRST_TO_GO}{script}; print(m.__version__)"]
    environment = {**os.environ, **LEAN_ENVIRONMENT}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s, env=environment
        )
    except subprocess.TimeoutExpired:
        mend = f"stop what else runs and try again, or {_again(name)}"
        return Check(name, "FAIL", f"{known}, still hung after {limit_s:g} s", mend)
    except OSError as error:
        return Check(name, "FAIL", f"no process can be started to try it: {error.strerror}", "stop what else runs here")
    if done.returncode:
        return Check(name, "FAIL", *_failure(name, known, done))
    found = done.stdout.decode(errors="replace").split()[-1]
    if _numbers(found) < _numbers(least):
        return Check(name, "warn", f"{found}, older than {least}", f"pip install --upgrade '{name}>={least}'")
    return Check(name, "ok", found + (" with CPUExecutionProvider" if name == "onnxruntime" else ""))


def _failure(name: str, known: str, done: subprocess.CompletedProcess[bytes]) -> tuple[str, str]:
    """How a library's process failed, and how to mend it."""
    if done.returncode == -signal.SIGILL:
        found = f"{known}, ends with an illegal instruction (SIGILL): built for a newer processor than {processor().cpu}"
        return found, f"install another version: pip install --upgrade {name}, or an older one"
    if done.returncode == -signal.SIGKILL:
        return f"{known}, killed, as when memory runs out", "stop what else runs here"
    if done.returncode < 0:
        return f"{known}, crashes ({signal.strsignal(-done.returncode)})", _again(name)
    said = done.stderr.decode(errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), f"exit code {done.returncode}")
    if known == _UNKNOWN and last.startswith("ModuleNotFoundError: "):
        return "not installed", f"pip install '{name}>={LIBRARIES[name][0]}'"
    return f"{known}, does not work: {last}", _again(name)


def _again(name: str) -> str:
    return f"install it again: pip install --force-reinstall '{name}>={LIBRARIES[name][0]}'"


def memory_check(root: Path) -> tuple[Check, AvailableMemory | None]:
    """How much memory there is, what of it is free, and what bounds that."""
    try:
        room = available_memory(root)
    except DeviceError as error:
        return Check("memory", "FAIL", *parted(error, ";:", "run it on the device, under Linux")), None
    limit = read_text(Path(room.bound))
    bound = f"the limit of {mb(int(limit))} in {room.bound}" if limit.isdecimal() else room.bound
    return Check("memory", "ok", f"{mb(room.available_bytes)} of {mb(room.total_bytes)} available, by {bound}"), room


def swap_check(root: Path) -> Check:
    """Is anything swapped, and to where (``/proc/swaps``: path, kind, KiB, KiB used, priority)?"""
    rows = [line.split() for line in read_text(root / "proc/swaps").splitlines()[1:]]
    if not rows:
        return Check("swap", "ok", "none, so that times are steady")
    places = [f"{mb(int(size) * 1024)} {_place(path, root)}, {mb(int(used) * 1024)} used" for path, _, size, used, _ in rows]
    return Check("swap", "warn", "; ".join(places), "times vary where memory is short: 'sudo swapoff -a' while networks run")


def locked_check(root: Path, *, swaps: bool) -> Check:
    """May weights be locked in memory, where there is swap that they could go to?"""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    capable = re.search(r"^CapEff:\s*([0-9a-f]+)$", read_text(root / "proc/self/status"), re.MULTILINE)
    if most == resource.RLIM_INFINITY or (capable and int(capable[1], 16) & _CAN_LOCK):
        return Check("locked memory", "ok", "no limit")
    if not swaps:
        return Check("locked memory", "ok", f"at most {mb(most)}, which does not matter without swap")
    mend = "'ulimit -l unlimited' as root, LimitMEMLOCK=infinity in a systemd unit, or no swap"
    return Check("locked memory", "warn", f"at most {mb(most)}: weights beyond that may be swapped out", mend)


def storage_check(folder: Path) -> Check:
    """How fast the storage of a folder is read cold; nothing is left there."""
    try:
        rate = storage(folder, _STORAGE_BYTES).read_bytes_per_s
    except DeviceError as error:
        return Check("storage", "warn", *parted(error, ";:", "give another --folder"))
    found = f"{mb(rate)}/s read cold in {folder.absolute()}"
    if rate < _SLOW_BYTES_PER_S:
        return Check("storage", "warn", found, "weights that do not stay are read at that rate: use a faster card or an SSD")
    return Check("storage", "ok", found)


def huge_pages_check(root: Path) -> Check:
    """May weights lie in huge pages?"""
    setting = root / "sys/kernel/mm/transparent_hugepage/enabled"
    chosen = re.search(r"\[(\w+)\]", read_text(setting))
    if not chosen:
        return Check("huge pages", "ok", "this kernel has none; networks do without")
    if chosen[1] == "never":
        return Check("huge pages", "warn", "never: some networks are slower", f"echo madvise | sudo tee {setting}")
    return Check("huge pages", "ok", chosen[1])


def processor_check(root: Path) -> Check:
    """The cores that may be used, and whether their clock is held down."""
    found, cpus = processor(root), root / "sys/devices/system/cpu"
    count = f"{found.cores} of {os.cpu_count()} cores" if found.cores != os.cpu_count() else f"{found.cores} cores"
    speeds = [read_text(path) for path in cpus.glob("cpu*/cpufreq/cpuinfo_max_freq")]  # kHz
    clock = max((int(speed) for speed in speeds if speed.isdecimal()), default=0)
    governor, driver = (read_text(cpus / "cpu0/cpufreq" / name) for name in ("scaling_governor", "scaling_driver"))
    text = f"{count}, {found.cpu}" + (f", up to {clock / 1e6:.1f} GHz" if clock else "")
    if governor == "powersave" and "pstate" not in driver:  # Intel's and AMD's own drivers mean something else by it
        mend = f"echo ondemand | sudo tee {cpus}/cpu*/cpufreq/scaling_governor"
        return Check("threads", "warn", f"{text}, but held at the lowest clock (governor powersave)", mend)
    return Check("threads", "ok", text)


def parted(error: RuntimeFault, marks: str, otherwise: str) -> tuple[str, str]:
    """What was found, and how to mend it: what the error says behind the last of ``marks``, or else ``otherwise``."""
    match = re.fullmatch(rf"(.*)[{marks}] (.*)", str(error))
    return (match[1], match[2]) if match else (str(error), otherwise)


def mb(nbytes: int) -> str:
    """Bytes in MB."""
    return f"{nbytes / 1e6:.1f} MB"


def _place(path: str, root: Path) -> str:
    """Where swap is: ``/proc/swaps`` has a block device's path, or a file's, whose file system's device tells."""
    if "/zram" in path:
        return f"on {path}, in compressed memory"
    file, device = root / path.lstrip("/"), path
    if not path.startswith("/dev/") and file.exists():
        number = file.stat().st_dev
        device = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    return f"on {path}" + (", on an SD card or eMMC" if "mmcblk" in device else "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
