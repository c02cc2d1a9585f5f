"""Test that noise at a hub without passwords is counted and dropped, and that every answer is right."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.frames import FRAME_LIMIT_BYTES
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.devices import Devices
from tests.waiting import PATIENCE_S, wait_for

TOPICS = ["workers/w0/output", "workers/w1/output", "workers/w0/input", "workers/w0/orders", "clients/c1/submit"]
TOPICS += ["workers/w7/state", "workers/w0/state/x", "clients/c1/result", "elsewhere"]


class Intruder:
    """A user that publishes every message again: unchanged, on another topic, with other bytes, or truncated."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._random = random.Random(7)
        self.connection = Connection(
            Join(hub=url), "intruder", received=self._hear, connected=lambda: self.connection.subscribe(["hyps/#"])
        )
        self.connection.open()

    def _hear(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        if len(self.heard) < 2000:
            self.heard.append((topic, payload))

    def disturb(self) -> None:
        topic, payload = self._random.choice(self.heard)
        what = self._random.randrange(5)
        if what == 0:  # a replay; not of orders and states, which an intruder could forge as well
            topic = topic if topic.endswith(("input", "output", "submit")) else "hyps/elsewhere"
        elif what == 1:
            topic = f"hyps/{self._random.choice(TOPICS)}"
            payload = self._random.randbytes(self._random.randrange(200))
        elif what == 2:
            payload = payload[: self._random.randrange(len(payload) + 1)]
            topic = f"hyps/{self._random.choice(TOPICS[:3])}"
        elif what == 3:
            changed = bytearray(payload or b"{")
            changed[self._random.randrange(min(len(changed), 200))] ^= 1 << self._random.randrange(8)
            payload = bytes(changed)
            topic = topic if topic.endswith(("input", "output")) else "hyps/workers/w1/output"
        else:
            payload = b"HyPS\x01" + self._random.randbytes(self._random.choice([10, 5000, FRAME_LIMIT_BYTES - 100]))
            topic = f"hyps/{self._random.choice(TOPICS[:3])}"
        self.connection.publish(topic, payload)


def test_noise(devices: Devices) -> None:
    devices.start(2)
    generator = np.random.default_rng(8)
    pictures: list[dict[str, Any]] = [
        {"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(60)
    ]
    executor = load_executor(devices.bundle)
    expected = [executor.run(picture)["scores"].tobytes() for picture in pictures]
    intruder = Intruder(devices.url)
    with closing(intruder.connection), closing(devices.engine()) as engine:
        answers = []
        for done in engine.run(in_memory(pictures)):
            assert not done.error
            answers.append(done.outputs["scores"].tobytes())
            for _ in range(5):
                intruder.disturb()
    assert answers == expected
    command = devices.command("hyps-manager", "status", "--hub", devices.url, "--json")

    def rejected() -> int:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        return sum(json.loads(done.stdout)["rejected"].values())

    wait_for("the count", lambda: rejected() > 20)
    assert "Traceback" not in devices.log("manager") + devices.log("w0") + devices.log("w1")
