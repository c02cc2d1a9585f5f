"""Test what an operator reads: a worker's life, why a hub is waited for, and the status of a manager without a bundle."""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import encode_join
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.execution.engine import in_memory
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import PATIENCE_S, wait_for


def test_a_worker_says_what_happens_to_it(devices: Devices) -> None:
    """Without --verbose it says that it joins, what it holds, and that the hub is gone and back."""
    devices.settings = None
    devices.start_manager()
    command: list[str | Path] = ["--hub", devices.url, "--name", "w0", "--memory", "120MB", "--threads", "1"]
    devices.start_command("w0", "hyps-worker", [*command, "--cache", devices.bundle.parent / "w0.cache"])
    wait_for("a sub-bundle", lambda: "w0 holds sub-bundle 0: " in devices.log("w0"))
    assert devices.log("w0").startswith(f"w0 joined the hub at {devices.url}\nw0 holds sub-bundle 0: ")
    assert " MB of weights\n" in devices.log("w0")
    devices.kill("hub")
    wait_for("its loss", lambda: f"the hub at {devices.url} is gone (" in devices.log("w0"))
    devices.start_hub()
    wait_for("its return", lambda: f"w0 is back at the hub at {devices.url}" in devices.log("w0"))
    picture = {"image": np.zeros((1, 3, 32, 32), np.float32)}
    with closing(devices.engine()) as engine:
        (result,) = engine.run(in_memory([picture]))
    assert result.error is None


def test_a_quiet_worker_says_nothing(devices: Devices) -> None:
    devices.start_manager()
    devices.start_command(
        "w0",
        "hyps-worker",
        ["--hub", devices.url, "--name", "w0", "--memory", "120MB", "--quiet", "--cache", devices.bundle.parent / "q.cache"],
    )
    wait_for("a sub-bundle", lambda: "sub-bundle 0 on w0: loading -> loaded" in devices.log("manager"))
    assert devices.log("w0") == ""


def worker(devices: Devices, *options: str | Path) -> None:
    cache = devices.bundle.parent / "waiting.cache"
    devices.start_command("w0", "hyps-worker", ["--memory", "120MB", "--threads", "1", "--cache", cache, *options])


def test_a_worker_says_why_it_waits_and_waits_longer_each_time(devices: Devices) -> None:
    port = free_port()
    worker(devices, "--name", "w0", "--hub", f"mqtt://127.0.0.1:{port}")
    line = f"hyps-worker: cannot reach the hub at mqtt://127.0.0.1:{port}: Connection refused; trying again in "
    wait_for("three attempts", lambda: devices.log("w0").count(line) >= 3)
    assert [text.split(line)[1] for text in devices.log("w0").splitlines()[:3]] == ["0.2 s", "0.4 s", "0.8 s"]


def test_a_name_that_is_not_found_is_said(devices: Devices) -> None:
    worker(devices, "--name", "w0", "--hub", "mqtt://no-such-host.invalid:1883")
    pattern = "cannot reach the hub at mqtt://no-such-host.invalid:1883: "
    wait_for("the reason", lambda: pattern in devices.log("w0"))
    assert any(reason in devices.log("w0") for reason in ("not known", "resolution", "No address"))


def test_a_hub_that_does_not_answer_is_said(devices: Devices) -> None:
    """Something listens at the port, and never speaks MQTT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        worker(devices, "--name", "w0", "--hub", f"mqtt://127.0.0.1:{port}")
        wait_for("the reason", lambda: f"the hub at mqtt://127.0.0.1:{port} does not answer yet" in devices.log("w0"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("password", "refuses: Not authorized; the join file is out of date"),
        ("authority", "is not the one of the join file: "),
    ],
)
def test_a_wrong_credential_ends_the_worker(
    devices: Devices, mosquitto: str, tmp_path: Path, wrong: str, reason: str
) -> None:
    hub, other, port = tmp_path / "hub", tmp_path / "other", free_port()
    init_hub(hub, ["127.0.0.1"], port)
    init_hub(other, ["127.0.0.1"], port)
    right, wrong_join = add_user(hub, Role.WORKER, "w0"), add_user(other, Role.WORKER, "w0")
    join = msgspec.structs.replace(right, **{wrong: getattr(wrong_join, wrong)})
    write_secret(hub / "w0.join", encode_join(join))
    with running(mosquitto, hub / "mosquitto.conf", port):
        worker(devices, "--join", hub / "w0.join")
        assert devices.processes["w0"].wait(PATIENCE_S) == 2
    assert reason in devices.log("w0")
    assert len(devices.log("w0").splitlines()) == 1


def test_the_status_of_a_manager_that_serves_no_bundle(devices: Devices, tmp_path: Path) -> None:
    """It has only its page: its status is its own, and names its workers."""
    options: list[str | Path] = ["--web", "127.0.0.1:0", "--library", tmp_path / "library", "--hub", devices.url]
    devices.start_command("manager", "hyps-manager", ["serve", *options])
    devices.start_worker("w0")

    def status() -> str:
        command = devices.command("hyps-manager", "status", "--hub", devices.url)
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout

    wait_for("the worker's line", lambda: "w0 " in status())
    lines = status().splitlines()
    assert lines[0] == "the manager runs, and serves no bundle: choose one on its page"
    assert "120.0 MB" in lines[-1]


def test_the_status_of_a_manager_without_workers(devices: Devices) -> None:
    devices.start_manager()

    def status() -> str:
        command = devices.command("hyps-manager", "status", "--hub", devices.url)
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout

    wait_for("its status", lambda: "no worker has joined: start hyps-worker on a board" in status())
