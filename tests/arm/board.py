"""Boot an emulated board, let it do one job, and read its report from the serial console.

QEMU's cortex-a53 without acceleration: slow, but the kernel's memory limit is a real board's, and there is no swap. Both
disks share one throttle, as everything on a Raspberry Pi shares one card.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.arm.job import MARK
from tests.arm.parts import Parts

CORES = 4
#: What a microSD card reads in a second (the storage rate of the target rpi3b).
CARD_BYTES_PER_S = 22_000_000
#: Where a job may leave a file that its report brings back.
SAVED = "/tmp/saved.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command for a board of ``memory_mib``, with a disk mounted at ``/data`` and kernel settings by path."""

    memory_mib: int
    disk: Path
    command: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job. ``anonymous_bytes`` and ``file_bytes`` are sampled, ``peak_bytes`` is the kernel's own.

    ``exit`` is negative for a signal; ``read_bytes`` is what both disks delivered while the command ran, ``major_faults``
    how often it waited for a page of a file.
    """

    exit: int
    out_of_memory: bool
    seconds: float
    peak_bytes: int
    anonymous_bytes: int
    file_bytes: int
    major_faults: int
    read_bytes: int
    memory_bytes: int
    available_bytes: int
    stdout: str
    stderr: str
    saved: bytes

    @property
    def killed_for_memory(self) -> bool:
        """Whether the kernel ended it because memory ran out."""
        return self.out_of_memory and self.exit == -9


def boot(parts: Parts, job: Job) -> Outcome:
    """Run one job on a fresh board. Raises `RuntimeError` with the console's end when the board reports nothing."""
    done = subprocess.run(
        _machine(parts, job), stdin=subprocess.DEVNULL, capture_output=True, timeout=job.timeout_s, check=False
    )
    console = done.stdout.decode(errors="replace")
    lines = [line for line in console.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise RuntimeError(f"the board reported nothing; its console ends with\n{console[-3000:]}{done.stderr.decode()}")
    said: dict[str, Any] = json.loads(lines[0].removeprefix(MARK))
    if "error" in said:
        raise RuntimeError(f"the job could not run: {said['error']}")
    return Outcome(
        out_of_memory=bool(said["out_of_memory"]),
        read_bytes=sum(said["read_bytes"].values()),
        saved=base64.b64decode(said["saved"]),
        **{
            name: said[name]
            for name in (
                "exit",
                "seconds",
                "peak_bytes",
                "anonymous_bytes",
                "file_bytes",
                "major_faults",
                "memory_bytes",
                "available_bytes",
                "stdout",
                "stderr",
            )
        },
    )


def _machine(parts: Parts, job: Job) -> list[str]:
    """QEMU's command line. Disks get their names in the reverse order of the devices: the root is vda, the data vdb."""
    said = {"command": job.command, "settings": dict(job.settings), "saves": SAVED}
    encoded = base64.b64encode(json.dumps(said).encode()).decode()
    throttle = f"throttling.bps-read={CARD_BYTES_PER_S},throttling.group=card"
    return [
        *("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-smp", str(CORES), "-m", str(job.memory_mib)),
        *("-accel", "tcg,thread=multi", "-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(parts.kernel), "-initrd", str(parts.initramfs)),
        *("-append", f"console=ttyAMA0 loglevel=3 panic=-1 hyps.job={encoded}"),
        *("-drive", f"if=none,id=data,format=raw,readonly=on,file={job.disk},{throttle}"),
        *("-drive", f"if=none,id=root,format=raw,snapshot=on,file={parts.root_image},{throttle}"),
        *("-device", "virtio-blk-device,drive=data", "-device", "virtio-blk-device,drive=root"),
    ]
