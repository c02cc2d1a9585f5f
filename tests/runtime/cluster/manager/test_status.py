"""Test the manager's status as a viewer sees it."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import encode_join
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.execution.engine import in_memory
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import PATIENCE_S, wait_for


def status(devices: Devices, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = devices.command("hyps-manager", "status", *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_workers_placements_queues_and_rates(devices: Devices) -> None:
    devices.start(2, "--replicas", "2")
    picture = {"image": np.zeros((1, 3, 32, 32), np.float32)}
    with closing(devices.engine()) as engine:
        assert len([*engine.run(in_memory([picture] * 6))]) == 6

    latest: list[dict[str, Any]] = []

    def answered() -> bool:
        done = status(devices, "--hub", devices.url, "--json")
        latest.append(json.loads(done.stdout) if done.returncode == 0 else {})
        return bool(latest[-1]) and latest[-1]["answered"] == 6

    wait_for("the count", answered)
    found = latest[-1]
    assert (found["jobs"], found["answered_per_s"] > 0) == (0, True)
    assert [worker["name"] for worker in found["workers"]] == ["w0", "w1"]
    assert all(worker["memory_bytes"] == 120_000_000 and not worker["set_aside"] for worker in found["workers"])
    assert all(
        sub_bundle["homes"].keys() == {"w0", "w1"} and sub_bundle["waiting"] == 0 for sub_bundle in found["sub_bundles"]
    )
    assert {state for sub_bundle in found["sub_bundles"] for state in sub_bundle["homes"].values()} <= {
        "loaded",
        "inferring",
        "computed",
    }
    table = status(devices, "--hub", devices.url).stdout
    assert "0 jobs under way, 6 answered" in table
    for sub_bundle in found["sub_bundles"]:
        assert sub_bundle["first"] in table


def test_no_manager_publishes_a_status(devices: Devices) -> None:
    done = status(devices, "--hub", devices.url)
    assert (done.returncode, "no manager's status reaches this user" in done.stderr) == (2, True)


def test_a_manager_that_is_gone_is_not_shown(devices: Devices) -> None:
    devices.start_manager()
    wait_for("its first status", lambda: status(devices, "--hub", devices.url).returncode == 0)
    devices.kill("manager")
    wait_for("the end of its status", lambda: status(devices, "--hub", devices.url).returncode == 2)


def test_a_viewer_may_read_only_the_status(devices: Devices, mosquitto: str, tmp_path: Path) -> None:
    hub, port = tmp_path / "hub", free_port()
    init_hub(hub, ["127.0.0.1"], port)
    write_secret(tmp_path / "v.join", encode_join(add_user(hub, Role.VIEWER, "v")))
    access = (hub / "access").read_text()
    assert access.endswith("user v\ntopic read hyps/status\n")
    with running(mosquitto, hub / "mosquitto.conf", port):
        devices.start_manager("--join", str(hub / "manager.join"))
        wait_for("its first status", lambda: status(devices, "--join", tmp_path / "v.join").returncode == 0)
