"""Kill a worker of a coded group in a stream, again and again: with codes and copies, and as it is without."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.execution.engine import in_memory
from tests.bench.answer_waits import waits_s
from tests.bench.clusters import cluster_on, mosquitto
from tests.bench.coded_networks import (
    CIFAR,
    VGG16,
    CodedNetwork,
    Inputs,
    coded_classifier,
    coded_vgg16,
    right_scores,
    start_worker,
)
from tests.bench.codes_results import KillRun
from tests.bench.place import Place
from tests.runtime.cluster.devices import Devices

KILLS = int(os.environ.get("KILLS", "50"))
#: No stream has another kill after so many seconds.
LONGEST_S = 60 * float(os.environ.get("MINUTES", "30"))
#: The stream's inputs under way, and the pictures that it repeats.
_WINDOW, _PICTURES = 3, 16
_MODES = {"codes and copies": ("--tolerate", "1", "--hedge", "late"), "without codes": ("--exact",)}


def kill_runs(place: Place) -> tuple[KillRun, ...]:
    """Kill workers of the small classifier on loopback, and of VGG16 by links of 94 Mbit/s."""
    made = []
    for network in (CIFAR, VGG16):
        bundle = coded_vgg16(place) if network is VGG16 else coded_classifier(place, 2)
        images = network.pictures(_PICTURES)
        right = right_scores(bundle, images)
        for name, options in _MODES.items():
            with ExitStack() as stack:
                folder = place.folder / f"{network.operator}-{name.replace(' ', '-')}"
                folder.mkdir()
                devices = started(stack, folder, network, bundle, options, shaped=network is VGG16)
                made.append(_Kills(place, devices, network, f"{network.name}, {name}").run(images, right))
    return tuple(made)


def started(
    stack: ExitStack, folder: Path, network: CodedNetwork, bundle: Path, options: Sequence[str], *, shaped: bool
) -> Devices:
    """Return a running cluster of a network, by ``shaped`` links where there are network namespaces."""
    boards = [f"w{number}" for number in range(network.workers)]
    devices, _ = cluster_on(stack, folder, bundle, mosquitto(), boards, shaped=shaped)
    devices.start_hub()
    devices.start_manager("--workers", str(len(boards)), *options)
    for board in boards:
        start_worker(devices, board, network)
    devices.wait_for_sub_bundles()
    time.sleep(1)
    return devices


class _Kills:
    """The kills in one stream, and the times of its answers."""

    def __init__(self, place: Place, devices: Devices, network: CodedNetwork, name: str) -> None:
        self._place, self._devices, self._network, self._name = place, devices, network, name
        self._times: list[float] = []
        self._kills: list[tuple[int, float]] = []
        self._ended = threading.Event()

    def run(self, images: Sequence[Inputs], right: Sequence[NDArray[Any]]) -> KillRun:
        """Stream the images until all kills are done."""
        latencies: list[float] = []
        decoded = wrong = 0
        thread = threading.Thread(target=self._break, daemon=True)
        with closing(self._devices.engine()) as engine:
            assert not any(done.error for done in engine.run(in_memory(images)))  # paced workers learn the answers
            thread.start()
            for done in engine.run(in_memory(self._endless(images)), window=_WINDOW):
                self._times.append(time.monotonic())
                latencies.append(done.compute_s)
                decoded += bool(done.decoded)
                expected = right[done.number % len(images)]
                off = np.inf if done.error else np.abs(next(iter(done.outputs.values())) - expected).max()
                wrong += bool(off > (self._network.tolerance * np.abs(expected).max() if done.decoded else 0))
        thread.join()
        near, length = self._network.around, len(latencies)
        around = {index for first, _ in self._kills for index in range(first, min(first + near, length))}
        busy = {index for first, _ in self._kills for index in range(first, first + 2 * near)}  # a worker starts meanwhile
        return KillRun(
            name=self._name,
            kills=len(self._kills),
            calm_s=tuple(round(each, 5) for index, each in enumerate(latencies) if index not in busy),
            around_s=tuple(round(latencies[index], 5) for index in sorted(around)),
            next_s=tuple(round(self._times[first] - at, 5) for first, at in self._kills if first < length),
            calm_next_s=waits_s(
                self._times, [(at, self._times[min(first + 2 * near, length - 1)]) for first, at in self._kills]
            ),
            decoded=decoded,
            wrong=wrong,
        )

    def _endless(self, images: Sequence[Inputs]) -> Iterator[Inputs]:
        number = 0
        while not self._ended.is_set():
            yield images[number % len(images)]
            number += 1

    def _break(self) -> None:
        near, until = self._network.around, time.monotonic() + LONGEST_S
        try:
            for number in range(KILLS):
                if time.monotonic() > until:
                    break
                self._await_answers(len(self._times) + 3 * near)
                board = self._member()
                self._place.say(f"{self._name}: kill {number + 1} of {KILLS}, {board}")
                self._devices.kill(board)
                self._kills.append((len(self._times), time.monotonic()))
                self._await_answers(self._kills[-1][0] + near)
                size = len(self._devices.log("manager"))
                start_worker(self._devices, board, self._network)
                self._await_loaded(board, size)
        finally:
            self._ended.set()

    def _await_answers(self, count: int) -> None:
        while len(self._times) < count:
            time.sleep(0.02)

    def _await_loaded(self, board: str, size: int) -> None:
        """Wait until the worker has had time to join and to load what it is given."""
        until = time.monotonic() + 4
        while time.monotonic() < until and f"on {board}: loading -> loaded" not in self._devices.log("manager")[size:]:
            time.sleep(0.05)
        time.sleep(0.5)

    def _member(self) -> str:
        """Return the worker that holds the first shard of the group, or who got it last."""
        line = rf"^sub-bundle \d+ on (\w+): \S*{self._network.operator}-shard1of"
        found = re.findall(line, self._devices.log("manager"), re.MULTILINE)
        return next((name for name in reversed(found) if name in self._devices.processes), "w0")
