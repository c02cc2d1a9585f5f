"""Test streams of images, replicas, votes and safe workers, with real processes."""

from __future__ import annotations

import json
import re
import subprocess
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
from tests.runtime.cluster.devices import BOASTER, LIAR, Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S, wait_for

Command = Callable[..., subprocess.CompletedProcess[str]]
COUNT = 24


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(6)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    executor = load_executor(layers)
    return [executor.run(picture)["scores"].tobytes() for picture in pictures]


def answers(devices: Devices, pictures: list[dict[str, NDArray[Any]]], window: int = 8) -> list[bytes]:
    with closing(devices.engine()) as engine:
        found = [*engine.run(in_memory(pictures), window=window)]
    assert [done.number for done in found] == [*range(len(pictures))]
    assert not any(done.error for done in found)
    return [done.outputs["scores"].tobytes() for done in found]


def test_a_stream_is_a_pipeline(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    """Several images are computed at a time, and their results come in order."""
    devices.start(3)
    assert answers(devices, pictures) == expected
    line = r"expected, with links of 94 Mbit/s where none is measured: [\d.]+ s an inference, [\d.]+ a second"
    assert re.search(line, devices.log("manager"))
    assert most_at_once(devices.log("manager")) == 3


def test_tensors_larger_than_the_room_for_tensors_pass(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    """Managers and workers make room for the largest tensor of the bundle, and have one of them under way at a time."""
    devices.settings = Settings(room_bytes=1000)
    devices.start(3)
    assert answers(devices, pictures[:6]) == expected[:6]
    assert most_at_once(devices.log("manager")) == 1
    assert "no room" not in "".join(map(devices.log, ("manager", "w0", "w1", "w2")))


def most_at_once(log: str) -> int:
    """Return the largest number of sub-bundles that were inferring at the same time."""
    inferring, most = set[str](), 0
    for sub_bundle, state in re.findall(r"sub-bundle (\d+) on w\d: \w+ -> (\w+)$", log, re.MULTILINE):
        inferring = inferring | {sub_bundle} if state == "inferring" else inferring - {sub_bundle}
        most = max(most, len(inferring))
    return most


def results(devices: Devices) -> int:
    """Return how many results of sub-bundles the manager has received."""
    return devices.log("manager").count("inferring -> computed")


def await_results(devices: Devices, count: int) -> None:
    wait_for(f"{count} results", lambda: results(devices) >= count)


def test_a_camera_is_answered_image_by_image(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    """A slow stream's images do not wait for later ones, and a killed hub delays them only shortly."""
    devices.start(1)
    found: list[bytes] = []
    answered: list[int] = []  # when an image is taken: how many of the earlier ones have their answer

    def camera() -> Iterator[dict[str, NDArray[Any]]]:
        for number, picture in enumerate(pictures[:6]):
            answered.append(len(found))
            yield picture
            if number == 3:
                devices.kill("hub")
                devices.start_hub()
            await_results(devices, number + 1)
            time.sleep(0.5)

    with closing(devices.engine()) as engine:
        found.extend(done.outputs["scores"].tobytes() for done in engine.run(in_memory(camera())))
    assert found == expected[:6]
    assert answered[-1] > 0


def test_one_command_for_many_images(devices: Devices, hyps_run: Command, photograph: Path, tmp_path: Path) -> None:
    """An unreadable image is reported, and the others are computed; tensors travel compressed."""
    devices.start(2, "--compress")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    inputs = [photograph, tmp_path / "bad.jpg", *[photograph] * 10]
    done = hyps_run(devices.bundle, *inputs, "--engine", devices.url, "--json")
    assert done.returncode == 2
    assert "bad.jpg" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    here = json.loads(hyps_run(devices.bundle, photograph, "--json").stdout)
    assert [each["top"] for each in found] == [here["top"]] * 11


def test_the_first_of_two_replicas_wins(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    """A frozen worker delays nothing: neither until its lease ends, nor until the hub notices."""
    devices.settings = Settings(keepalive_s=4 * PATIENCE_S)
    devices.start(2, "--replicas", "2")
    homes = re.findall(r"^sub-bundle (\d+) on (w\d):", devices.log("manager"), re.MULTILINE)
    assert {home for _, home in homes} == {"w0", "w1"}
    assert len(set(homes)) == 2 * len({sub_bundle for sub_bundle, _ in homes})
    with closing(devices.engine()) as engine:
        stream = engine.run(in_memory(pictures))
        first = next(stream)
        devices.freeze("w0")
        found = [first, *stream]
    assert "w0 is gone" not in devices.log("manager")
    assert [done.outputs["scores"].tobytes() for done in found] == expected


def test_a_worker_that_answers_wrongly_is_outvoted_and_named(
    devices: Devices, pictures: list[Any], expected: list[bytes]
) -> None:
    devices.start_manager("--workers", "3", "--vote", "3")
    devices.start_worker("w0")
    devices.start_worker("w1")
    devices.start_program("w2", LIAR)
    devices.wait_for_sub_bundles(workers=3)
    assert answers(devices, pictures) == expected
    wait_for("its name", lambda: "w2 is set aside: it was outvoted on sub-bundle" in devices.log("manager"))
    assert not re.search("w[01] is set aside", devices.log("manager"))


def test_a_worker_that_is_slower_than_it_claims_loses_its_work(
    devices: Devices, pictures: list[Any], expected: list[bytes]
) -> None:
    """Its claim draws nearly all steps to it; after five slow answers, the one that takes so long is another's."""
    devices.start_manager("--workers", "2")
    devices.start_worker("w0")
    devices.start_program("boaster", BOASTER)
    devices.wait_for_sub_bundles(workers=1)
    assert re.search("on boaster: 00-relu1_1 to 1[0-3]-", devices.log("manager"))
    assert answers(devices, pictures[:6]) == expected[:6]
    wait_for("its name", lambda: "boaster: its claim of 9e+04 GMAC/s is taken for" in devices.log("manager"))
    wait_for("its loss", lambda: "on w0: 00-relu1_1" in devices.log("manager"))
    assert answers(devices, pictures[:2]) == expected[:2]


def test_votes_without_a_majority_fail(devices: Devices, hyps_run: Command, photograph: Path) -> None:
    """Two of three voters disagree: there is no answer until the third has voted."""
    devices.start_manager("--workers", "2", "--vote", "3")
    devices.start_worker("w0")
    devices.start_program("w1", LIAR)
    devices.wait_for_sub_bundles(workers=2)
    with subprocess.Popen([devices.hyps_run, devices.bundle, photograph, "--engine", devices.url]) as client:
        wait_for("both workers' results", lambda: results(devices) >= 2)
        time.sleep(0.5)
        assert client.poll() is None
        client.kill()
    devices.start_worker("w2")
    done = hyps_run(devices.bundle, photograph, "--engine", devices.url)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for("its name", lambda: "w1 is set aside: it was outvoted on sub-bundle" in devices.log("manager"))


def test_only_safe_workers_get_the_input(devices: Devices, pictures: list[Any], expected: list[bytes]) -> None:
    devices.start_manager("--workers", "2", "--safe", "w9")
    devices.start_worker("w0")
    devices.start_worker("w1")
    wait_for("the reason", lambda: "no worker that may see the inputs is there" in devices.log("manager"))
    devices.start_worker("w9")
    devices.wait_for_sub_bundles(workers=2)
    assert answers(devices, pictures[:4]) == expected[:4]
    assert re.findall(r"^sub-bundle 0 on (\w+):", devices.log("manager"), re.MULTILINE)[0] == "w9"
    assert "sub-bundle 0" not in devices.log("w0") + devices.log("w1")
