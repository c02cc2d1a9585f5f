"""Check what the runtime needs of a device, with one function for each thing; each check says how to mend what is wrong.

A library is tried in a child process: a wheel built for another processor ends its process with an illegal instruction
(onnxruntime 1.21.0 on a Raspberry Pi 4: https://github.com/microsoft/onnxruntime/issues/23957). The files of ``/proc`` and
``/sys`` are read below a ``root``, so that a test can lay out a board's files.
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
from hyps.runtime.library_memory import COSTLIEST, installed_memory, is_measured, measured_versions

#: The oldest versions that work, as in pyproject.toml, and a program that each library must be able to run.
PYTHON = (3, 11)
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "numpy": ("2.0", "import numpy as m; m.ones((9, 9)) @ m.ones((9, 9))"),
    "msgspec": ("0.19", "import msgspec as m; m.json.decode(b'1')"),
    "pillow": ("11", "from PIL import Image as m; m.new('RGB', (9, 9)).resize((4, 4))"),
    "onnxruntime": ("1.23", "import onnxruntime as m; assert 'CPUExecutionProvider' in m.get_available_providers()"),
}
#: The same of a library that only some bundles need.
OPTIONAL_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "zstandard": ("0.22", "import zstandard as m; m.decompress(m.compress(b'1'))"),
}
#: Importing onnxruntime took 16 s from the slow card of an emulated Raspberry Pi 3.
_LIMIT_S = 60.0
_UNKNOWN = "of unknown version"
STOP_OTHERS = "stop other programs here"
#: The slowest cards write this in a second or two, and read it in two at most.
_STORAGE_BYTES = 8 << 20
#: The rate that cards of speed class 10, the slowest sold today, guarantee.
_SLOW_BYTES_PER_S = 10_000_000
_CAN_LOCK = 1 << 14  # CAP_IPC_LOCK of capabilities(7)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check: what was checked, its state, what was found; and how to mend it, unless it is ``ok``.

    With ``warn`` networks run, but not as well as they could; with ``FAIL`` they do not run.
    """

    check: str
    state: Literal["ok", "warn", "FAIL"]
    found: str
    mend: str = ""


def python_check(release: tuple[int, ...], bits: int) -> Check:
    """Check that this Python is new enough, and of 64 bits, as onnxruntime's wheels are."""
    found, least = f"{platform.python_version()}, {bits} bits", ".".join(map(str, PYTHON))
    if bits != 64:
        return Check("python", "FAIL", found, "install a 64-bit system: onnxruntime has wheels for 64 bits only")
    if release < PYTHON:
        return Check("python", "FAIL", found, f"install Python {least} or newer, and hyps for it")
    return Check("python", "ok", found)


def architecture_check(machine: str) -> Check:
    """Check that PyPI has wheels of onnxruntime for this kind of processor."""
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
    """Check that a library works: a child process, which may crash or hang, uses it."""
    least, script = _requirement(name)
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
        mend = f"stop other programs and try again, or {_install_again(name)}"
        return Check(name, "FAIL", f"{known}, still hung after {limit_s:g} s", mend)
    except OSError as error:
        return Check(name, "FAIL", f"no process can be started to try it: {error.strerror}", STOP_OTHERS)
    if done.returncode:
        return Check(name, "FAIL", *_failure(name, known, done))
    found = done.stdout.decode(errors="replace").split()[-1]
    if _numbers(found) < _numbers(least):
        return Check(name, "warn", f"{found}, older than {least}", f"pip install --upgrade '{name}>={least}'")
    return onnxruntime_memory_check(found) if name == "onnxruntime" else Check(name, "ok", found)


def onnxruntime_memory_check(version: str) -> Check:
    """Say whether the memory that this version of onnxruntime takes was measured, or by how much plans for it are larger."""
    found, taken = f"{version} with CPUExecutionProvider", installed_memory(version)
    if is_measured(version):
        return Check("onnxruntime", "ok", f"{found}; its memory was measured")
    if not taken.margin_bytes:
        return Check("onnxruntime", "ok", f"{found}; its memory is taken from {measured_versions()}")
    text = f"{found}; its memory was not measured, only that of {measured_versions()}"
    mend = f"compile with --onnxruntime {taken.version}, which allows {mb(taken.margin_bytes)} more than for {COSTLIEST}"
    return Check("onnxruntime", "warn", text, mend)


def _failure(name: str, known: str, done: subprocess.CompletedProcess[bytes]) -> tuple[str, str]:
    """Return how a library's process failed, and how to mend it."""
    if done.returncode == -signal.SIGILL:
        found = f"{known}, ends with an illegal instruction (SIGILL): built for a newer processor than {processor().cpu}"
        return found, f"install another version: pip install --upgrade {name}, or an older one"
    if done.returncode == -signal.SIGKILL:
        return f"{known}, killed, as when memory runs out", STOP_OTHERS
    if done.returncode < 0:
        return f"{known}, crashes ({signal.strsignal(-done.returncode)})", _install_again(name)
    lines = done.stderr.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
    if known == _UNKNOWN and last.startswith("ModuleNotFoundError: "):
        return "not installed", f"pip install '{name}>={_requirement(name)[0]}'"
    return f"{known}, does not work: {last}", _install_again(name)


def _install_again(name: str) -> str:
    return f"install it again: pip install --force-reinstall '{name}>={_requirement(name)[0]}'"


def _requirement(name: str) -> tuple[str, str]:
    return LIBRARIES[name] if name in LIBRARIES else OPTIONAL_LIBRARIES[name]


def memory_check(root: Path) -> tuple[Check, AvailableMemory | None]:
    """Return a check of the memory (how much there is, how much is available, what limits it), and the memory itself."""
    try:
        memory = available_memory(root)
    except DeviceError as error:
        return failed_check("memory", "FAIL", error, "run this on the device, under Linux"), None
    limit = read_text(Path(memory.bound))
    bound = f"the limit of {mb(int(limit))} in {memory.bound}" if limit.isdecimal() else memory.bound
    found = f"{mb(memory.available_bytes)} of {mb(memory.total_bytes)} available, by {bound}"
    return Check("memory", "ok", found), memory


def swap_check(root: Path) -> Check:
    """Check that there is no swap, or say where (``/proc/swaps``: path, kind, KiB, KiB used, priority)."""
    rows = [line.split() for line in read_text(root / "proc/swaps").splitlines()[1:]]
    if not rows:
        return Check("swap", "ok", "none, so that times are steady")
    places = [f"{mb(int(size) * 1024)} {_place(path, root)}, {mb(int(used) * 1024)} used" for path, _, size, used, _ in rows]
    return Check("swap", "warn", "; ".join(places), "times vary where memory is short: 'sudo swapoff -a' while networks run")


def locked_check(root: Path, *, swaps: bool) -> Check:
    """Check that weights may be locked in memory, where there is swap that they could go to."""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    capable = re.search(r"^CapEff:\s*([0-9a-f]+)$", read_text(root / "proc/self/status"), re.MULTILINE)
    if most == resource.RLIM_INFINITY or (capable and int(capable[1], 16) & _CAN_LOCK):
        return Check("locked memory", "ok", "no limit")
    if not swaps:
        return Check("locked memory", "ok", f"at most {mb(most)}, which does not matter without swap")
    mend = "'ulimit -l unlimited' as root, LimitMEMLOCK=infinity in a systemd unit, or no swap"
    return Check("locked memory", "warn", f"at most {mb(most)}: weights beyond that may be swapped out", mend)


def storage_check(folder: Path) -> Check:
    """Check how fast the storage of a folder is read cold; nothing is left there."""
    try:
        rate = storage(folder, _STORAGE_BYTES).read_bytes_per_s
    except DeviceError as error:
        return failed_check("storage", "warn", error, "give another --folder")
    found = f"{mb(rate)}/s read cold in {folder.absolute()}"
    if rate < _SLOW_BYTES_PER_S:
        return Check("storage", "warn", found, "streamed weights are read at that rate: use a faster card or an SSD")
    return Check("storage", "ok", found)


def huge_pages_check(root: Path) -> Check:
    """Check that weights may be in huge pages."""
    setting = root / "sys/kernel/mm/transparent_hugepage/enabled"
    chosen = re.search(r"\[(\w+)\]", read_text(setting))
    if not chosen:
        return Check("huge pages", "ok", "this kernel has none; networks do without")
    if chosen[1] == "never":
        return Check("huge pages", "warn", "never: some networks are slower", f"echo madvise | sudo tee {setting}")
    return Check("huge pages", "ok", chosen[1])


def processor_check(root: Path) -> Check:
    """Check that the clock of the cores is not held down, and say how many may be used."""
    found, cpus = processor(root), root / "sys/devices/system/cpu"
    count = f"{found.cores} of {os.cpu_count()} cores" if found.cores != os.cpu_count() else f"{found.cores} cores"
    speeds = [read_text(path) for path in cpus.glob("cpu*/cpufreq/cpuinfo_max_freq")]  # kHz
    clock = max((int(speed) for speed in speeds if speed.isdecimal()), default=0)
    governor, driver = (read_text(cpus / "cpu0/cpufreq" / name) for name in ("scaling_governor", "scaling_driver"))
    text = f"{count}, {found.cpu}" + (f", up to {clock / 1e6:.1f} GHz" if clock else "")
    if governor == "powersave" and "pstate" not in driver:  # in Intel's and AMD's own drivers it means something else
        mend = f"echo ondemand | sudo tee {cpus}/cpu*/cpufreq/scaling_governor"
        return Check("threads", "warn", f"{text}, but held at the lowest clock (governor powersave)", mend)
    return Check("threads", "ok", text)


def failed_check(name: str, state: Literal["warn", "FAIL"], error: RuntimeFault, remedy: str) -> Check:
    """Return a check that ended in ``error``; ``remedy`` stands in where the error has none."""
    return Check(name, state, error.fault.problem, error.fault.remedy or remedy)


def mb(nbytes: int) -> str:
    """Return bytes in MB."""
    return f"{nbytes / 1e6:.1f} MB"


def _place(path: str, root: Path) -> str:
    """Return where swap is: ``/proc/swaps`` has the path of a block device, or of a file on a block device."""
    if "/zram" in path:
        return f"on {path}, in compressed memory"
    file, device = root / path.lstrip("/"), path
    if not path.startswith("/dev/") and file.exists():
        number = file.stat().st_dev
        device = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    return f"on {path}" + (", on an SD card or eMMC" if "mmcblk" in device else "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
