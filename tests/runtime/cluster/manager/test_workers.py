"""Test the manager's registry of workers."""

from __future__ import annotations

import time

import msgspec
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol.messages import Orders, Pulse, WorkerState
from tests.runtime.cluster.devices import Devices

HERE = WorkerState(online=True, session="1" * 32, memory_bytes=1)


@pytest.fixture
def registry(devices: Devices) -> WorkerRegistry:
    made = WorkerRegistry(devices.bundle, read_manifest(devices.bundle), None, ClusterOptions(), MeasuredSpeeds(), Monitor())
    assert made.update("w0", HERE).joined
    return made


def test_a_process_that_is_gone_has_no_pulse(registry: WorkerRegistry) -> None:
    """A pulse of an earlier process may arrive after the first state of its successor."""
    registry.pulse("w0", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    registry.pulse("w0", Pulse(session="2" * 32, resident_bytes=9, queue=2))
    assert registry.last_pulse("w0")[1].resident_bytes == 5


def test_a_message_costs_what_was_measured_under_load_or_else_before(registry: WorkerRegistry) -> None:
    def costs() -> float | None:
        (capacity,) = registry.capacities(None)
        return capacity.message_s

    assert costs() is None
    registry.update("w0", msgspec.structs.replace(HERE, message_s=0.002))
    assert costs() == 0.002
    registry.pulse("w0", Pulse(session="1" * 32, resident_bytes=5, queue=1, message_s=0.003))
    assert costs() == 0.003


def test_every_message_is_a_sign_of_life(registry: WorkerRegistry) -> None:
    time.sleep(0.05)
    silent_s, _ = registry.last_pulse("w0")
    registry.seen("w0")
    assert registry.last_pulse("w0")[0] < 0.05 <= silent_s


def test_unknown_workers_are_ignored(registry: WorkerRegistry) -> None:
    registry.pulse("w1", Pulse(session="1" * 32, resident_bytes=5, queue=1))
    registry.seen("w1")
    with pytest.raises(KeyError):
        registry.last_pulse("w1")


def test_a_move_does_not_wait_for_a_worker_that_is_set_aside(registry: WorkerRegistry) -> None:
    """It is still online, but gets no orders any more that it could obey."""
    registry.orders._orders["w0"] = Orders(epoch=3, url="http://127.0.0.1:1", token="", sub_bundles=())
    assert not registry.has_obeyed("w0")
    registry.set_aside("w0", "it cannot load its sub-bundles")
    assert registry.has_obeyed("w0")
