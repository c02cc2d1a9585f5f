"""Test that steps move under a stream, with real processes: speeds that change, kills, and managers that only advise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.bench.faults import journal_states
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.kills_in_moves import WORKERS, KillsInMoves
from tests.waiting import wait_for

#: Multiply-adds a second: three such workers take about a third of a second for an image.
PACE = 150e6
#: ``KILLS=200 make bench-moves`` has more.
KILLS = 6


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(9)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(20)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    executor = load_executor(layers)
    return [executor.run(picture)["scores"].tobytes() for picture in pictures]


def start(devices: Devices, *options: str) -> None:
    devices.settings = Settings(restless=True)
    devices.start_manager("--workers", "3", *options)
    for name in WORKERS:
        devices.start_paced(name, PACE)
    devices.wait_for_sub_bundles(workers=3)


def stream_while(devices: Devices, pictures: list[Any], expected: list[bytes], act: Callable[[], None]) -> int:
    """Stream until ``act`` returns; check each answer and their order; return how many there were."""
    over = threading.Event()
    failed: list[BaseException] = []

    def acting() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    def endless() -> Iterator[Any]:
        number = 0
        while not over.is_set():
            yield pictures[number % len(pictures)]
            number += 1

    threading.Thread(target=acting, daemon=True).start()
    count = 0
    with closing(devices.engine()) as engine:
        for done in engine.run(in_memory(endless())):
            assert (done.number, done.error) == (count, None)
            assert done.outputs["scores"].tobytes() == expected[count % len(expected)]
            count += 1
    if failed:
        raise failed[0]
    return count


def test_steps_move_to_faster_boards_under_a_stream(
    devices: Devices, pictures: list[Any], expected: list[bytes], tmp_path: Path
) -> None:
    """No job is lost, repeated or out of order, and every answer has the local run's bits."""
    start(devices, "--rebalance", "on")

    def slow_down() -> None:
        time.sleep(3)
        devices.pace("w1", PACE / 4)
        wait_for("a move", lambda: "w1 is the busiest" in devices.log("manager"))
        wait_for("its end", lambda: "the move is done" in devices.log("manager"))
        time.sleep(1)

    count = stream_while(devices, pictures, expected, slow_down)
    log = devices.log("manager")
    assert "new jobs take the new runs of steps" in log
    wait_for("delivery", lambda: journal_states(tmp_path / "journal") == {"delivered": count})


def test_advice_moves_nothing(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    start(devices, "--rebalance", "advise")
    devices.pace("w1", PACE / 4)
    stream_while(
        devices,
        pictures,
        expected,
        lambda: wait_for("advice", lambda: "steps stay (--rebalance advise)" in devices.log("manager")),
    )
    assert "new jobs take the new runs" not in devices.log("manager")


def test_processes_are_killed_during_moves(
    devices: Devices, pictures: list[Any], expected: list[bytes], tmp_path: Path
) -> None:
    devices.settings = Settings(restless=True)
    kills = KillsInMoves(devices, KILLS, 5, print)
    assert kills.run(pictures, expected) == 0
    assert len(kills.killed) == KILLS
    assert kills.moves_done
    wait_for("delivery", lambda: journal_states(tmp_path / "journal") == {"delivered": kills.answers})
