"""Test what a worker measures of its messages: from enough answers on, in a real cluster, and until it did other things."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import closing

import numpy as np

from hyps.runtime.cluster.worker.message_meter import MessageMeter
from hyps.runtime.execution.engine import in_memory
from tests.runtime.cluster.devices import Devices
from tests.waiting import wait_for


def work() -> None:
    """Use the processor until its clock has moved."""
    before = time.thread_time()
    while time.thread_time() - before < 1e-4:
        pass


def answer(meter: MessageMeter, messages: float) -> None:
    meter.begin()
    work()
    meter.computed()
    work()
    meter.answered(messages)


def test_a_few_answers_say_nothing() -> None:
    meter = MessageMeter()
    for _ in range(7):
        answer(meter, 10)
    assert meter.message_s is None
    answer(meter, 10)
    assert meter.message_s is not None
    assert meter.message_s >= 1e-5
    before = meter.message_s
    meter.restart()
    for _ in range(7):
        answer(meter, 1)
    assert meter.message_s == before
    answer(meter, 1)
    assert meter.message_s >= 1e-4


def test_a_status_says_what_a_message_costs_each_worker(devices: Devices) -> None:
    devices.start(1)
    picture = {"image": np.zeros((1, 3, 32, 32), np.float32)}

    def message_s() -> float | None:
        command = devices.command("hyps-manager", "status", "--hub", devices.url, "--json")
        workers = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["workers"]
        found: float | None = workers[0]["message_s"] if workers else None
        return found

    with closing(devices.engine()) as engine:
        assert message_s() is None
        assert [done.error for done in engine.run(in_memory([picture] * 12))] == [None] * 12
        wait_for("the figure", lambda: message_s() is not None)
    assert 0 < (message_s() or 0.0) < 1
