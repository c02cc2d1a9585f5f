"""Measure coded groups on real workers: kills in a stream, and links with heavy-tailed delays."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.executor import load_executor
from tests.bench.clusters import mosquitto
from tests.bench.codes_results import DelayRun, KillRun
from tests.bench.delayed_links import delayed_links
from tests.bench.place import Place
from tests.repository import BIN, ROOT
from tests.runtime.cluster.codes_bundle import compile_coded
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings

Inputs = Mapping[str, NDArray[Any]]
KILLS, INFERENCES = int(os.environ.get("KILLS", "50")), int(os.environ.get("INFERENCES", "100"))
SHARDS = (2, 4, 8)
#: Answers that count as around a kill, answers between kills, and the stream's inputs under way.
_AROUND, _WINDOW = 20, 3
#: How far decoded scores may be off, as a part of the largest score.
_TOLERANCE = 1e-5
#: What a manager of each row is started with.
MODES = {
    "without codes": ("--exact",),
    "codes, late": ("--hedge", "late"),
    "codes, always": ("--hedge", "always"),
}


def pictures(count: int = 64) -> list[Inputs]:
    generator = np.random.default_rng(18)
    return [{"image": generator.standard_normal((1, 3, 32, 32), dtype=np.float32)} for _ in range(count)]


def coded_bundle(place: Place, shards: int) -> Path:
    """Return the classifier with conv4_1 in so many shards and a parity shard."""
    folder = place.folder / f"coded-{shards}"
    return folder if folder.exists() else compile_coded(ROOT, BIN, folder, 1, shards)


def kill_runs(place: Place) -> tuple[KillRun, ...]:
    """Kill a worker of the coded group, with codes and copies, and as it is without."""
    made = []
    for name in ("codes and copies", "without codes"):
        place.say(name)
        options = ("--exact",) if name == "without codes" else ("--tolerate", "1", "--hedge", "late")
        with ExitStack() as stack:
            devices = _started(stack, place, name, 2, 4, options)
            made.append(_killed(place, devices, name))
    return tuple(made)


def _started(stack: ExitStack, place: Place, name: str, shards: int, workers: int, options: Sequence[str]) -> Devices:
    folder = place.folder / f"{name.replace(' ', '-')}-{shards}"
    folder.mkdir(exist_ok=True)
    devices = Devices(stack, folder, coded_bundle(place, shards), BIN, mosquitto(), Settings())
    devices.start_hub()
    devices.start_manager("--workers", str(workers), *options)
    for number in range(workers):
        devices.start_worker(f"w{number}")
    _await_loaded(devices)
    return devices


def _await_loaded(devices: Devices) -> None:
    devices.wait_for_sub_bundles()
    time.sleep(1)


def _killed(place: Place, devices: Devices, name: str) -> KillRun:
    images = pictures()
    executor = load_executor(devices.bundle)
    right = [executor.run(image)["scores"] for image in images]
    latencies: list[float] = []
    times: list[float] = []
    kills: list[tuple[int, float]] = []
    ended = threading.Event()
    decoded = wrong = 0

    def breaking() -> None:
        try:
            for number in range(KILLS):
                before = len(times)
                while len(times) < before + 3 * _AROUND and not ended.is_set():
                    time.sleep(0.02)
                board = _member(devices)
                place.say(f"{name}: kill {number + 1} of {KILLS}, {board}")
                devices.kill(board)
                kills.append((len(times), time.monotonic()))
                while len(times) < kills[-1][0] + _AROUND:
                    time.sleep(0.02)
                devices.start_worker(board)
                _rejoined(devices, board)
        finally:
            ended.set()

    def endless() -> Iterator[Inputs]:
        number = 0
        while not ended.is_set():
            yield images[number % len(images)]
            number += 1

    thread = threading.Thread(target=breaking, daemon=True)
    thread.start()
    with closing(devices.engine()) as engine:
        for done in engine.run(in_memory(endless()), window=_WINDOW):
            times.append(time.monotonic())
            latencies.append(done.compute_s)
            decoded += bool(done.decoded)
            expected = right[done.number % len(images)]
            off = np.abs(done.outputs["scores"] - expected).max() if not done.error else np.inf
            wrong += bool(off > (_TOLERANCE * np.abs(expected).max() if done.decoded else 0))
    around = {index for first, _ in kills for index in range(first, min(first + _AROUND, len(times)))}
    busy = {index for first, _ in kills for index in range(first, first + 2 * _AROUND)}  # a worker starts meanwhile
    return KillRun(
        name=name,
        kills=len(kills),
        calm_s=tuple(round(each, 5) for index, each in enumerate(latencies) if index not in busy),
        around_s=tuple(round(latencies[index], 5) for index in sorted(around)),
        next_s=tuple(round(times[first] - at, 5) for first, at in kills if first < len(times)),
        decoded=decoded,
        wrong=wrong,
    )


def _member(devices: Devices) -> str:
    """Return the worker that holds the first shard of the group, or who got it last."""
    found = re.findall(r"^sub-bundle \d+ on (\w+): \S*conv4_1-shard1of", devices.log("manager"), re.MULTILINE)
    return next((name for name in reversed(found) if name in devices.processes), "w0")


def _rejoined(devices: Devices, board: str) -> None:
    """Wait until the worker has had time to join and to load what it is given."""
    until = time.monotonic() + 4
    size = len(devices.log("manager"))
    while time.monotonic() < until and f"on {board}: loading -> loaded" not in devices.log("manager")[size:]:
        time.sleep(0.05)
    time.sleep(0.5)


def delay_runs(place: Place) -> tuple[DelayRun, ...]:
    """Infer one input at a time by delayed links, for each number of shards and each mode."""
    made = []
    for shards in SHARDS:
        for name, options in MODES.items():
            place.say(f"{shards} shards, {name}")
            with ExitStack() as stack:
                made.append(_delayed(stack, place, name, shards, options))
    return tuple(made)


def _delayed(stack: ExitStack, place: Place, name: str, shards: int, options: Sequence[str]) -> DelayRun:
    folder = place.folder / f"delayed-{name.replace(' ', '-')}-{shards}"
    folder.mkdir()
    devices = Devices(stack, folder, coded_bundle(place, shards), BIN, mosquitto(), Settings(keepalive_s=60))
    devices.start_hub()
    workers = [f"w{number}" for number in range(shards + 1)]
    links = stack.enter_context(delayed_links(devices.port, workers, b"conv4_1/"))
    devices.start_manager("--workers", str(len(workers)), *options)
    hub = devices.url
    for worker in workers:
        devices.url = f"mqtt://127.0.0.1:{links[worker].port}"
        devices.start_worker(worker)
    devices.url = hub
    _await_loaded(devices)
    for link in links.values():
        link.delays = True
    images = pictures()
    decoded = 0
    seconds = []
    with closing(devices.engine()) as engine:
        for number in range(INFERENCES + 15):  # the first ones teach the manager what is late
            (done,) = engine.run(in_memory([images[number % len(images)]]))
            assert not done.error, done.error
            if number >= 15:
                seconds.append(round(done.compute_s, 5))
                decoded += bool(done.decoded)
    return DelayRun(name=name, shards=shards, seconds=tuple(seconds), decoded=decoded)
