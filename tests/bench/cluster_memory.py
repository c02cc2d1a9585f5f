"""Measure the memory of a cluster's processes: an idle worker; manager and hub while a thousand images wait."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clusters import mosquitto
from tests.bench.faults import journal_states
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices
from tests.waiting import wait_for

COUNT = 1000
_WAIT_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Who, when, and resident bytes: now and at the most so far."""

    what: str
    resident_bytes: int
    peak_bytes: int


def memory(folder: Path, small: Path, large: Path) -> Iterator[Held]:
    """With the classifier, then with a network whose images are large: its worker is frozen while the images come."""
    with ExitStack() as stack:
        devices = _devices(stack, folder / "small", small)
        devices.start_worker("w0")
        wait_for("the worker", lambda: _connected(devices))
        time.sleep(1)
        yield held(devices, "w0", "worker, nothing placed yet")
        devices.start_manager()
        devices.wait_for_sub_bundles(workers=1)
        time.sleep(1)
        yield held(devices, "w0", "worker, idle with the classifier's partitions")
        yield held(devices, "manager", "manager, idle")
        yield held(devices, "hub", "hub, idle")
    with ExitStack() as stack:
        devices = _devices(stack, folder / "large", large)
        devices.start_manager()
        devices.start_worker("w0", memory="900MB")
        devices.wait_for_sub_bundles(workers=1)
        yield held(devices, "manager", "manager, idle, VGG16")
        devices.freeze("w0")
        command = [sys.executable, "-m", "tests.bench.flood", str(large), devices.url, str(COUNT)]
        with subprocess.Popen(command) as client:
            try:
                journal = folder / "large" / "journal"
                wait_for(f"{COUNT} images", lambda: journal_states(journal).get("open", 0) == COUNT)
                yield held(devices, "manager", f"manager, {COUNT:,} images of VGG16 wait")
                yield held(devices, "hub", f"hub, {COUNT:,} images of VGG16 wait")
            finally:
                client.kill()


def held(devices: Devices, name: str, what: str) -> Held:
    """One process's memory."""
    resident_bytes, peak_bytes = (devices.resident_bytes(name, figure) for figure in ("VmRSS", "VmHWM"))
    return Held(what=what, resident_bytes=resident_bytes, peak_bytes=peak_bytes)


def _devices(stack: ExitStack, folder: Path, bundle: Path) -> Devices:
    folder.mkdir()
    made = Devices(stack, folder, bundle, BIN, mosquitto())
    made.start_hub()
    return made


def _connected(devices: Devices) -> bool:
    """The worker's process has a connection to the hub."""
    lines = Path(f"/proc/{devices.processes['w0'].pid}/net/tcp").read_text().splitlines()
    return any(f":{devices.port:04X} 01 " in line for line in lines)
