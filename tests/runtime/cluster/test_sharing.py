"""Test data-parallel replicas with real processes: a stream is faster with them, in order, and survives their loss."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import wait_for

COUNT = 40
#: Multiply-adds a second: an image takes a fifth of a second.
SLOW = 200e6


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(8)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    return local(layers, pictures)


def local(bundle: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    """Return the local run's bits."""
    executor = load_executor(bundle)
    return [executor.run(picture)["scores"].tobytes() for picture in pictures]


def answers(devices: Devices, pictures: list[Any], during: dict[int, Any] | None = None) -> tuple[list[bytes], float]:
    """Return the answers in their order, and how many came a second; call ``during`` at these images."""
    found, times = [], []

    def source() -> Iterator[Any]:
        for number, picture in enumerate(pictures):
            if during and number in during:
                during[number]()
            yield picture

    with closing(devices.engine()) as engine:
        for number, done in enumerate(engine.run(in_memory(source()))):
            assert (done.number, done.error) == (number, None)
            found.append(done.outputs["scores"].tobytes())
            times.append(time.monotonic())
    return found, (len(times) - 8) / (times[-1] - times[7])


def computed(devices: Devices, name: str) -> int:
    """Return how many sub-bundles a worker has computed."""
    return len(re.findall(rf"sub-bundle \d+ on {name}: inferring -> computed", devices.log("manager")))


def test_two_boards_hold_the_slowest_run(devices: Devices, cifar_bundle: Path, pictures: list[Any]) -> None:
    """A network of one step: the second board gets half of the inputs; when it is lost, the first gets them all."""
    devices.bundle = cifar_bundle
    expected = local(cifar_bundle, pictures)
    devices.start_manager("--placement", "best")
    devices.start_paced("w0", SLOW)
    devices.wait_for_sub_bundles(workers=1)
    found, alone = answers(devices, pictures)
    assert found == expected
    devices.start_paced("w1", SLOW)
    wait_for("a second home", lambda: "2 replicas" in devices.log("manager"))
    devices.wait_for_sub_bundles(workers=2)
    found, both = answers(devices, pictures)
    print(f"one board: {alone:.2f} images a second, two: {both:.2f}, {both / alone:.2f} times as many")
    assert found == expected
    assert min(computed(devices, "w0") - COUNT, computed(devices, "w1")) > COUNT // 4
    assert computed(devices, "w0") + computed(devices, "w1") == 2 * COUNT  # each image once
    found, _ = answers(devices, pictures, {20: lambda: devices.kill("w1")})
    assert found == expected


def test_unequal_boards_share_all_steps(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    """Three boards whose speeds are as 1, 2 and 4; a slow one does not hold the others up."""
    rates = {"w0": SLOW, "w1": 2 * SLOW, "w2": 4 * SLOW}
    devices.start_manager("--workers", "3", "--placement", "best")
    for name, rate in rates.items():
        devices.start_paced(name, rate)
    devices.wait_for_sub_bundles(workers=3)
    found, rate = answers(devices, pictures * 2)
    print(f"{rate:.2f} images a second")
    assert found == expected * 2
    counts = [computed(devices, name) for name in rates]
    assert sum(counts) == 2 * COUNT
    assert counts[0] < counts[1] < counts[2]


def test_an_input_alone_takes_the_best_board_that_holds_all(
    devices: Devices, pictures: list[Any], expected: list[bytes]
) -> None:
    """Three boards, of which one holds all weights: for latency, the others get nothing, as each crossing takes time."""
    devices.settings = Settings(places_as_measured=True)
    devices.start_manager("--workers", "3", "--placement", "best", "--objective", "latency")
    for name, memory in (("w0", "80MB"), ("w1", "120MB"), ("w2", "80MB")):
        devices.start_worker(name, memory=memory)
    devices.wait_for_sub_bundles(workers=1)
    found, _ = answers(devices, pictures)
    assert found == expected
    homes = re.findall(r"^sub-bundle (\d+) on (\w+): .*all stay in memory", devices.log("manager"), re.MULTILINE)
    assert homes == [("0", "w1")]
    assert computed(devices, "w1") == COUNT
