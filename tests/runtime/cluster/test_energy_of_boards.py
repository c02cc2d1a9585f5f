"""Test the energy of a cluster of real processes, as ``hyps-manager status`` shows it."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from hyps.runtime.execution.engine import in_memory
from tests.runtime.cluster.devices import Devices
from tests.waiting import PATIENCE_S, wait_for


def status(devices: Devices, *options: str) -> str:
    command = devices.command("hyps-manager", "status", "--hub", devices.url, *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout


def test_all_boards_have_a_source(devices: Devices) -> None:
    """The manager's meter shows 5 W, which holds a worker's estimate: both are on this machine. The other knows nothing."""
    devices.start_manager("--workers", "2", "--meter", "echo 5")
    devices.start_worker("w0", "--watts", "1.5,4")
    devices.start_worker("w1")
    devices.wait_for_sub_bundles(workers=2)
    latest: dict[str, Any] = {}

    def is_known() -> bool:
        picture = {"image": np.zeros((1, 3, 32, 32), np.float32)}
        with closing(devices.engine()) as engine:
            list(engine.run(in_memory([picture])))
        latest.clear()
        latest.update(json.loads(status(devices, "--json") or "{}"))
        energy: dict[str, Any] = latest.get("energy") or {"static_joules": None}
        return energy["static_joules"] is not None and len(energy["boards"]) == 2

    wait_for(lambda: f"the energy of both boards: {latest}", is_known)
    energy = latest["energy"]
    boards = {board["name"]: board for board in energy["boards"]}
    assert boards["manager and hub"]["source"] == "meter 'echo 5'"
    assert not boards["manager and hub"]["estimated"]
    assert (boards["w0"]["source"], boards["w0"]["estimated"]) == ("estimated from --watts", True)
    assert (boards["w0"]["counted_with"], boards["manager and hub"]["counted_with"]) == ("manager and hub", None)
    assert 1.5 <= boards["w0"]["watts"] <= 4
    assert energy["unknown"] == ["w1"]
    assert energy["watts"] == pytest.approx(5, rel=0.01)
    assert energy["static_joules"] > 0
    text = " ".join(status(devices).split())
    assert "an inference: " in text
    assert "meter 'echo 5'" in text
    assert "W idle, estimated from --watts; counted with manager and hub, on the same machine" in text
    assert "not known: w1 (there, give --meter CMD or --watts IDLE,BUSY)" in text


def test_a_meter_that_does_not_work_is_refused(devices: Devices) -> None:
    for command in (
        devices.command("hyps-worker", "--hub", devices.url, "--name", "w0", "--memory", "120MB", "--meter", "echo x"),
        devices.command("hyps-manager", str(devices.bundle), "--hub", devices.url, "--meter", "echo x"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "meter 'echo x' printed 'x'; it must print watts, one number a line, such as 3.72" in done.stderr
