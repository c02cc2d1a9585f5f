"""The machine that a benchmark runs on, and the state of the source, in words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from tests.bench.readings import Machine
from tests.repository import ROOT

_KINDS = {
    "nvme": "NVMe",
    "mmcblk": "SD card or eMMC",
    "vd": "virtio, a virtual machine's disk",
    "xvd": "a virtual machine's disk",
}


def machine(folder: Path) -> Machine:
    """This machine; ``folder`` tells which of its storage."""
    return Machine(
        processor=_processor(),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        storage=_storage(folder),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        onnxruntime=metadata.version("onnxruntime"),
        numpy=metadata.version("numpy"),
        hyps=metadata.version("hyps"),
    )


def commit() -> str:
    """The commit that is checked out, with a note where tracked files differ from it (those written here apart)."""
    changed = "status --porcelain --untracked-files=no -- . :!docs/benchmarks* :!README.md"
    try:
        name, differs = (_git(*command.split()) for command in ("rev-parse --short=10 HEAD", changed))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name} with changes" if differs else name


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    """Its model; ARM boards tell their own instead."""
    text = _read(Path("/proc/cpuinfo"))
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE) or re.search(r"^Model\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _storage(folder: Path) -> str:
    """File system and disk below a folder, as far as the kernel tells at once."""
    number = folder.stat().st_dev
    disk = f"{os.major(number)}:{os.minor(number)}"
    # proc(5): mount, parent, major:minor, root, mount point, options, fields, a dash, type
    mounted = re.search(rf"^\d+ \d+ {disk} .*? - (\S+)", _read(Path("/proc/self/mountinfo")), re.MULTILINE)
    kind = mounted[1] if mounted else "unknown file system"
    place = Path("/sys/dev/block") / disk
    if not place.exists():
        return kind
    place = place.resolve()
    whole = place.parent if (place / "partition").exists() else place
    known = next((words for start, words in _KINDS.items() if whole.name.startswith(start)), None)
    turning = _read(whole / "queue" / "rotational").strip()
    return f"{kind} on {whole.name} ({known or ('hard disk' if turning == '1' else 'solid state')})"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
