"""Who is there, as the manager knows it."""

from __future__ import annotations

import time

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol.messages import Pulse, WorkerState
from tests.runtime.cluster.devices import Devices

HERE = WorkerState(online=True, session="1" * 32, memory_bytes=1)


@pytest.fixture
def crew(devices: Devices) -> WorkerRegistry:
    made = WorkerRegistry(devices.bundle, read_manifest(devices.bundle), None)
    assert made.heard("w0", HERE).joined
    return made


def test_a_process_that_is_gone_has_no_pulse(crew: WorkerRegistry) -> None:
    """What it sent may come after the first words of the one that took its place."""
    crew.pulse("w0", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    crew.pulse("w0", Pulse(session="2" * 32, resident_bytes=9, queue=2))
    assert crew.last_pulse("w0")[1].resident_bytes == 5


def test_whatever_a_worker_says_it_is_there(crew: WorkerRegistry) -> None:
    time.sleep(0.05)
    silent_s, _ = crew.last_pulse("w0")
    crew.seen("w0")
    assert crew.last_pulse("w0")[0] < 0.05 <= silent_s


def test_of_strangers_nothing_is_kept(crew: WorkerRegistry) -> None:
    crew.pulse("w1", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    crew.seen("w1")
    with pytest.raises(KeyError):
        crew.last_pulse("w1")
