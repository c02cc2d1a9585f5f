"""Who is there, as the manager knows it."""

from __future__ import annotations

import time

import pytest

from hyps.runtime.cluster.crew import Crew
from hyps.runtime.cluster.messages import Pulse, WorkerState
from hyps.runtime.integrity import read_manifest
from tests.runtime.cluster.devices import Devices

HERE = WorkerState(online=True, session="1" * 32, memory_bytes=1)


@pytest.fixture
def crew(devices: Devices) -> Crew:
    made = Crew(devices.bundle, read_manifest(devices.bundle), None)
    assert made.heard("w0", HERE).joined
    return made


def test_a_process_that_is_gone_has_no_pulse(crew: Crew) -> None:
    """What it sent may come after the first words of the one that took its place."""
    crew.pulse("w0", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    crew.pulse("w0", Pulse(session="2" * 32, resident_bytes=9, queue=2))
    assert crew.last_pulse("w0")[1].resident_bytes == 5


def test_whatever_a_worker_says_it_is_there(crew: Crew) -> None:
    time.sleep(0.05)
    silent_s, _ = crew.last_pulse("w0")
    crew.seen("w0")
    assert crew.last_pulse("w0")[0] < 0.05 <= silent_s


def test_of_strangers_nothing_is_kept(crew: Crew) -> None:
    crew.pulse("w1", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    crew.seen("w1")
    with pytest.raises(KeyError):
        crew.last_pulse("w1")
