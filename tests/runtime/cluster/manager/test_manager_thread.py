"""Test a manager on a thread of its own: how it starts, answers, fails and ends."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.cluster.broker.join import parse_address
from hyps.runtime.cluster.broker.link import Receiver
from hyps.runtime.cluster.manager.manager import Manager
from hyps.runtime.cluster.manager.manager_thread import ManagerBusy, ManagerThread
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BundleError, HubError, RuntimeFault

TIMEOUT_S = 20


class SilentLink:
    """A link to a hub that delivers nothing."""

    address, connected = parse_address("mqtt://127.0.0.1"), True

    def __init__(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> None:
        self.closed = False

    def open(self, wait_s: float = 0, *, patient: bool = False) -> None: ...

    def subscribe(self, topics: Sequence[str]) -> None: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None: ...

    def wait_until_sent(self, all_but_bytes: int, timeout_s: float | None = None) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def faults() -> queue.Queue[RuntimeFault]:
    return queue.Queue()


def manager_thread(
    bundle: Path,
    folder: Path,
    faults: queue.Queue[RuntimeFault],
    watch: Callable[[Manager], None] = lambda manager: None,
) -> ManagerThread:
    return ManagerThread(
        "manager",
        folder / "journal",
        lambda journal: Manager(bundle, SilentLink, journal, ClusterOptions()),
        failed=faults.put,
        watch=watch,
    )


def test_it_answers_until_it_is_stopped(bundle: Path, tmp_path: Path, faults: queue.Queue[RuntimeFault]) -> None:
    thread = manager_thread(bundle, tmp_path, faults)
    with pytest.raises(ManagerBusy, match="is not running"):
        thread.ask(Manager.status, TIMEOUT_S)
    thread.start(TIMEOUT_S)
    assert thread.ask(Manager.status, TIMEOUT_S).model == "tiny"
    with pytest.raises(KeyError):
        thread.ask(lambda manager: manager.manifest.tensors["nothing"], TIMEOUT_S)
    thread.stop(TIMEOUT_S)
    with pytest.raises(ManagerBusy, match="is not running"):
        thread.ask(Manager.status, TIMEOUT_S)
    assert (thread.fault, faults.qsize()) == (None, 0)


def test_a_fault_at_the_start_is_raised(tmp_path: Path, faults: queue.Queue[RuntimeFault]) -> None:
    thread = manager_thread(tmp_path / "nothing", tmp_path, faults)
    with pytest.raises(BundleError):
        thread.start(TIMEOUT_S)
    assert faults.empty()
    with closing(Journal(tmp_path / "journal")):  # which the thread has closed
        thread.stop(TIMEOUT_S)


def test_a_fault_later_is_reported_before_the_manager_ends(
    bundle: Path, tmp_path: Path, faults: queue.Queue[RuntimeFault]
) -> None:
    answers: list[str] = []

    def watch(manager: Manager) -> None:
        answers.append(manager.status().model)
        raise HubError("no workers")

    thread = manager_thread(bundle, tmp_path, faults, watch)
    thread.start(TIMEOUT_S)
    fault = faults.get(timeout=TIMEOUT_S)
    assert str(fault) == "no workers"
    thread.stop(TIMEOUT_S)
    assert (thread.fault, answers, faults.qsize()) == (fault, ["tiny"], 0)


def test_a_bug_is_a_fault(bundle: Path, tmp_path: Path, faults: queue.Queue[RuntimeFault]) -> None:
    def watch(manager: Manager) -> None:
        raise ZeroDivisionError

    thread = manager_thread(bundle, tmp_path, faults, watch)
    thread.start(TIMEOUT_S)
    assert str(faults.get(timeout=TIMEOUT_S)) == "the manager has ended: ZeroDivisionError"
    thread.stop(TIMEOUT_S)
