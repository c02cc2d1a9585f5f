"""Managers as workers of others, at hubs of their own: real processes, the local run's bits, whoever is killed."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.executor import load
from tests.runtime.cluster.broker import wait_for
from tests.runtime.cluster.devices import Devices

COUNT = 24


class Tree:
    """A manager with a worker and a group; hubs and folders of their own."""

    def __init__(self, stack: ExitStack, bundle: Path, bin_folder: Path, mosquitto: str, folder: Path) -> None:
        self._arguments = stack, bundle, bin_folder, mosquitto, folder
        self.top, self.below = self.level("top"), self.level("below")

    def level(self, name: str) -> Devices:
        stack, bundle, bin_folder, mosquitto, folder = self._arguments
        (folder / name).mkdir()
        devices = Devices(stack, folder / name, bundle, bin_folder, mosquitto)
        devices.start_hub()
        return devices

    def start(self, workers: int = 2) -> None:
        self.top.start_manager("--workers", "2")
        self.top.start_worker("w0")
        for number in range(workers):
            self.below.start_worker(f"b{number}")
        self.top.start_group("g1", self.below)
        self.top.wait_for_shares(workers=2)


@pytest.fixture
def tree(layers: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Tree]:
    with ExitStack() as stack:
        yield Tree(stack, layers, bin_folder, mosquitto, tmp_path)


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(7)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    executor = load(layers)
    return [executor.run(picture)["scores"].tobytes() for picture in pictures]


def answers(devices: Devices, pictures: list[Any], meanwhile: dict[int, Any] | None = None) -> list[bytes]:
    """What the stream answers; behind an answer of that number, something happens."""
    found = []
    with closing(devices.engine()) as engine:
        for done in engine.stream(pictures):
            assert done.error is None
            found.append(done.outputs["scores"].tobytes())
            if meanwhile and done.number in meanwhile:
                meanwhile[done.number]()
    return found


def test_the_local_runs_bits(tree: Tree, pictures: list[Any], expected: list[bytes]) -> None:
    tree.start()
    assert answers(tree.top, pictures) == expected
    log = tree.top.log("g1")
    assert set(re.findall(r"share \d+ on (b\d): \w+ -> computed", log)) == {"b0", "b1"}
    assert len(re.findall(r"^share \d+ on g1:", tree.top.log("manager"), re.MULTILINE)) == 1
    assert tree.top.resident_bytes("g1") < 110e6


def test_a_worker_of_the_group_is_killed(tree: Tree, pictures: list[Any], expected: list[bytes]) -> None:
    tree.start()
    assert answers(tree.top, pictures, {5: lambda: tree.below.kill("b1")}) == expected
    assert "b1 is gone" in tree.top.log("g1")
    assert "g1 is gone" not in tree.top.log("manager")
