"""Test the whole cluster, as processes at the real broker: the local run's bits, whichever process is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import encode_join
from hyps.runtime.cluster.manager.options import Timeouts
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.devices import QUITTER, Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import wait_for

Command = Callable[..., subprocess.CompletedProcess[str]]
#: The number of images of a stream during which something is killed.
COUNT = 30


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[Any]]:
    generator = np.random.default_rng(5)
    return [generator.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[NDArray[Any]]) -> list[bytes]:
    """Return the local run's bits."""
    executor = load_executor(layers)
    return [executor.run({"image": picture})["scores"].tobytes() for picture in pictures]


class Stream:
    """The pictures, run at the cluster one after the other on a thread of their own."""

    def __init__(self, devices: Devices, pictures: list[NDArray[Any]]) -> None:
        self.answers: list[bytes] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(devices, pictures))
        self._thread.start()

    def _run(self, devices: Devices, pictures: list[NDArray[Any]]) -> None:
        try:
            with closing(devices.engine()) as engine:
                for picture in pictures:
                    self.answers.append(run_one(engine, {"image": picture})["scores"].tobytes())
        except Exception as error:
            self.error = error

    def result(self) -> list[bytes]:
        self._thread.join(90)
        assert not self._thread.is_alive(), f"{len(self.answers)} answers"
        if self.error:
            raise self.error
        return self.answers

    def await_answers(self, count: int) -> None:
        wait_for(f"{count} answers", lambda: len(self.answers) >= count)


@pytest.fixture(scope="module")
def local_run(
    layers: Path, hyps_run: Command, photograph: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], bytes]:
    """Run the photograph on this device; return the classes printed and the file of outputs."""
    saved = tmp_path_factory.mktemp("local") / "local.npz"
    printed = hyps_run(layers, photograph, "--save", saved).stdout
    return printed.splitlines()[:-1], saved.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_local_runs_bits(
    devices: Devices,
    count: int,
    hyps_run: Command,
    photograph: Path,
    local_run: tuple[list[str], bytes],
    tmp_path: Path,
) -> None:
    """With one worker, the installed commands run as they are: they measure the device and wait as usual."""
    if count == 1:
        devices.settings = None
    devices.start(count)
    saved = tmp_path / "cluster.npz"
    done = hyps_run(devices.bundle, photograph, "--engine", devices.url, "--save", saved)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout.splitlines()[:-1], saved.read_bytes()) == local_run
    printed = hyps_run(devices.bundle, photograph, photograph, "--engine", devices.url, "--json").stdout.splitlines()
    assert [json.loads(line)["top"] for line in printed] == [json.loads(printed[0])["top"]] * 2
    assert all(devices.resident_bytes(f"w{number}") < 110e6 for number in range(count))
    assert devices.resident_bytes("manager") < 60e6


def test_a_worker_is_killed(devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    """Another worker takes its sub-bundle over, from the last tensors; each image gets one answer, the right one."""
    devices.start(3)
    stream = Stream(devices, pictures)
    wait_for("some answers", lambda: len(stream.answers) >= 5)
    devices.kill("w1")
    assert stream.result() == expected
    assert "w1 is gone: sub-bundle 1 must move" in devices.log("manager")
    devices.start_worker("w1")
    wait_for("w1 back", lambda: devices.log("manager").count("w1 has joined") == 2)
    devices.kill("w0")
    devices.kill("w2")
    assert Stream(devices, pictures[:5]).result() == expected[:5]
    last = [line for line in devices.log("w1").splitlines() if "fetched" in line]
    assert last, devices.log("w1")


def test_a_worker_dies_while_its_tensor_is_passed_on(
    devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]
) -> None:
    """The next worker was asked by then; it is asked again, with the tensor that another worker computes."""
    devices.start_manager("--workers", "2")
    devices.start_program("w0", QUITTER)
    devices.start_worker("w1")
    devices.wait_for_sub_bundles(workers=2)
    assert Stream(devices, pictures[:3]).result() == expected[:3]
    log = devices.log("manager")
    assert (
        0 < log.index("sub-bundle 1 on w1: loaded -> inferring") < log.index("w0 is gone") < log.index("sub-bundle 0 on w1")
    )


def test_a_worker_that_comes_back_downloads_nothing_twice(
    devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]
) -> None:
    devices.start(1)
    wait_for("its log", lambda: "fetched" in devices.log("w0"))
    devices.kill("w0")
    wait_for("its loss", lambda: "w0 is gone" in devices.log("manager"))
    before = devices.log("w0")
    assert "1 new: 4.8 MB fetched" in before or "1 new: 4.7 MB fetched" in before, before
    devices.start_worker("w0", memory="80MB")
    assert Stream(devices, pictures[:3]).result() == expected[:3]
    assert devices.resident_bytes("w0", "VmHWM") < 80e6
    assert "1 new: 0.0 MB fetched" in devices.log("w0").removeprefix(before)


def test_the_manager_is_killed(devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    devices.start(2)
    stream = Stream(devices, pictures)
    for answers in (5, 12, 13, 20):
        stream.await_answers(answers)
        devices.kill("manager")
        devices.start_manager("--workers", "2")
    assert stream.result() == expected


def test_the_hub_is_killed(devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    """A killed hub forgets everything: orders, states and waiting messages."""
    devices.start(2)
    stream = Stream(devices, pictures)
    wait_for("some answers", lambda: len(stream.answers) >= 5)
    devices.kill("hub")
    time.sleep(0.2)
    devices.start_hub()
    assert stream.result() == expected


def test_a_worker_dies_while_the_hub_is_dead(devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    """Its last will is lost with the hub; its sub-bundle moves to another worker all the same."""
    devices.start(2)
    stream = Stream(devices, pictures)
    wait_for("some answers", lambda: len(stream.answers) >= 5)
    devices.kill("hub")
    devices.kill("w1")
    devices.start_hub()
    assert stream.result() == expected
    assert "w1 is gone: sub-bundle 1 must move" in devices.log("manager")


def test_a_worker_that_cannot_load_is_replaced(
    devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes], tmp_path: Path
) -> None:
    """A worker whose cache is broken is asked to try again; then another worker gets its sub-bundle."""
    devices.start_manager("--workers", "2")
    devices.start_worker("w0")
    devices.start_worker("w1")
    wait_for("its cache", lambda: (tmp_path / "w1.cache/sub-bundles").exists())
    shutil.rmtree(tmp_path / "w1.cache/sub-bundles")
    (tmp_path / "w1.cache/sub-bundles").write_bytes(b"in the way")
    assert Stream(devices, pictures[:5]).result() == expected[:5]
    assert "w1 is set aside: it cannot load its sub-bundles" in devices.log("manager")


def test_everything_is_killed(devices: Devices, pictures: list[NDArray[Any]], expected: list[bytes]) -> None:
    devices.start(2)
    stream = Stream(devices, pictures)
    wait_for("some answers", lambda: len(stream.answers) >= 5)
    for name in ("hub", "w0", "manager", "w1"):
        devices.kill(name)
    devices.start_hub()
    devices.start_manager("--workers", "2")
    devices.start_worker("w1")
    devices.start_worker("w0")
    assert stream.result() == expected


def test_with_certificates_and_credentials(
    devices: Devices,
    mosquitto: str,
    hyps_run: Command,
    photograph: Path,
    local_run: tuple[list[str], bytes],
    tmp_path: Path,
) -> None:
    """The hub is that of ``init-hub``; files travel by TLS, too; no secret is in the list of processes or in a log."""
    hub, port = tmp_path / "hub", free_port()
    init_hub(hub, ["127.0.0.1"], port)
    joins = {name: add_user(hub, Role.WORKER, name) for name in ("w0", "w1")} | {"c": add_user(hub, Role.CLIENT, "c")}
    for name, join in joins.items():
        write_secret(hub / f"{name}.join", encode_join(join))
    with running(mosquitto, hub / "mosquitto.conf", port):
        devices.start_manager("--join", str(hub / "manager.join"), "--workers", "2")
        for name in ("w0", "w1"):
            devices.start_worker(name, "--join", str(hub / f"{name}.join"))
        devices.wait_for_sub_bundles(workers=2)
        done = hyps_run(devices.bundle, photograph, "--join", hub / "c.join")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[:-1] == local_run[0]
        orders = devices.log("w0") + devices.log("w1") + devices.log("manager") + (hub / "mosquitto.log").read_text()
        lists = "".join(Path(f"/proc/{each.pid}/cmdline").read_text() for each in devices.processes.values())
        assert all(join.password and join.password not in orders + lists for join in joins.values())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--batch", "2"], "cannot be combined with --batch"),
        (["--engine", "board"], "'board' names no engine; give mqtt://HOST:PORT"),
        (["--engine", "mqtt://127.0.0.1:1"], "cannot reach the hub"),
        (["--join", "nothing"], "cannot read nothing"),
    ],
    ids=["batch", "no address", "no hub", "no join file"],
)
def test_what_the_user_can_mend(
    devices: Devices, hyps_run: Command, photograph: Path, options: list[str], reason: str
) -> None:
    hub = [] if {"--engine", "--join"} & {*options} else ["--engine", devices.url]
    done = hyps_run(devices.bundle, photograph, *hub, *options)
    assert done.returncode == 2
    assert reason in done.stderr


def test_jobs_that_are_refused(devices: Devices, hyps_run: Command, photograph: Path, cifar_bundle: Path) -> None:
    devices.settings = Settings(timeouts=Timeouts(settle_s=0.4, startup_s=0))
    devices.start_manager()
    done = hyps_run(devices.bundle, photograph, "--engine", devices.url)
    assert (done.returncode, "no worker has joined the manager yet" in done.stderr) == (2, True)
    devices.start_worker("w0", memory="60MB")
    wait_for("the reason", lambda: "MB on a worker, the largest has 60.0 MB" in devices.log("manager"))
    devices.start_worker("w1")
    devices.wait_for_sub_bundles(workers=1)
    done = hyps_run(cifar_bundle, photograph, "--engine", devices.url)
    assert (done.returncode, "the manager runs another bundle" in done.stderr) == (2, True)
