"""Test groups, with real processes at two or three hubs: the local run's bits, whichever process is killed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import Join, encode_join, parse_address, read_join
from hyps.runtime.cluster.broker.link import Receiver
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.protocol import client_messages, messages
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.errors import HubError
from hyps.runtime.execution.engine import in_memory, run_one
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import PATIENCE_S, wait_for

COUNT = 24


class Tree:
    """A manager with a worker and a group, and the hub of the group's own workers."""

    def __init__(self, stack: ExitStack, bundle: Path, bin_folder: Path, mosquitto: str, folder: Path) -> None:
        self.folder, self.mosquitto = folder, mosquitto
        self._arguments = stack, bundle, bin_folder, mosquitto, folder
        self.top, self.below = self.level("top"), self.level("below")

    def level(self, name: str) -> Devices:
        stack, bundle, bin_folder, mosquitto, folder = self._arguments
        (folder / name).mkdir()
        devices = Devices(stack, folder / name, bundle, bin_folder, mosquitto, Settings())
        devices.start_hub()
        return devices

    def start(self, workers: Sequence[str], *options: str) -> None:
        """Start all above, after the ``workers`` below have joined their hub."""
        join = read_join(Path(options[-1])) if options else Join(hub=self.below.url)
        wait_for_workers(join, workers)
        self.top.start_manager("--workers", "2")
        self.top.start_worker("w0")
        self.top.start_group("g1", self.below, *options)
        self.top.wait_for_sub_bundles(workers=2)


def wait_for_workers(join: Join, workers: Sequence[str]) -> None:
    """Wait until these workers have sent their states to a hub, whose manager is not connected."""
    topics = {topic(Role.WORKER, name, "state") for name in workers}
    heard = set[str]()

    def received(text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        heard.add(text)

    connection = Connection(
        join, join.name or "watcher", received=received, connected=lambda: connection.subscribe(sorted(topics))
    )
    connection.open()
    wait_for(f"states of {workers}", lambda: heard >= topics)
    connection.close()


@pytest.fixture
def tree(layers: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Tree]:
    with ExitStack() as stack:
        yield Tree(stack, layers, bin_folder, mosquitto, tmp_path)


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(7)
    return [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(COUNT)]


@pytest.fixture(scope="module")
def expected(layers: Path, pictures: list[dict[str, NDArray[Any]]]) -> list[bytes]:
    executor = load_executor(layers)
    return [executor.run(picture)["scores"].tobytes() for picture in pictures]


def answers(devices: Devices, pictures: list[Any], meanwhile: dict[int, Any] | None = None) -> list[bytes]:
    """Return the stream's results; call a function of ``meanwhile`` after the result of its number."""
    found = []
    with closing(devices.engine()) as engine:
        for done in engine.run(in_memory(pictures)):
            assert done.error is None
            found.append(done.outputs["scores"].tobytes())
            if meanwhile and done.number in meanwhile:
                meanwhile[done.number]()
    return found


def homes(devices: Devices, worker: str) -> list[str]:
    return re.findall(rf"^sub-bundle (\d+) on {worker}:", devices.log("manager"), re.MULTILINE)


def test_workers_of_the_group_are_killed(tree: Tree, pictures: list[Any], expected: list[bytes]) -> None:
    """The manager above notices nothing until the group lacks a worker for a step, and gives its sub-bundle back.

    The hub below has passwords, and lets its manager connect only once.
    """
    hub, port = tree.folder / "hub", free_port()
    init_hub(hub, ["127.0.0.1"], port)
    memories = {"b0": "120MB", "b1": "120MB", "b2": "61MB"}
    for name in memories:
        write_secret(hub / f"{name}.join", encode_join(add_user(hub, Role.WORKER, name)))
    with running(tree.mosquitto, hub / "mosquitto.conf", port):
        for name, memory in memories.items():
            tree.below.start_worker(name, "--join", str(hub / f"{name}.join"), memory=memory)
        tree.start([*memories], "--sub-join", str(hub / "manager.join"))

        def kill_last() -> None:
            log = tree.top.log("g1")
            assert {"b0", "b1"} <= set(re.findall(r"sub-bundle \d+ on (b\d): \w+ -> computed", log))
            assert "b1 is gone" in log
            assert "g1 is gone" not in tree.top.log("manager")
            assert tree.top.resident_bytes("g1") < 110e6
            tree.below.kill("b0")

        assert answers(tree.top, pictures, {4: lambda: tree.below.kill("b1"), 15: kill_last}) == expected
        lost = r"sub-bundle \d is lost: no group of workers for this sub-bundle: .*(fit no other worker|MB on a worker)"
        assert re.search(lost, tree.top.log("g1"))
        assert re.search(r"g1 is gone: sub-bundle \d must move", tree.top.log("manager"))
        assert len(homes(tree.top, "g1")) == 1


def test_the_group_is_killed(tree: Tree, pictures: list[Any], expected: list[bytes]) -> None:
    """Another worker gets its sub-bundle; what a killed group left on disk does not prevent its return.

    In the end it is the only worker, and holds both sub-bundles.
    """
    for name in ("b0", "b1"):
        tree.below.start_worker(name)
    tree.start(["b0", "b1"])

    def kill() -> None:
        tree.top.kill("g1")
        tree.top.start_group("g1", tree.below)

    assert answers(tree.top, pictures, {5: kill}) == expected
    assert re.search(r"g1 is gone: sub-bundle \d must move", tree.top.log("manager"))
    wait_for("g1 back", lambda: tree.top.log("manager").count("g1 has joined") == 2)
    tree.top.kill("w0")
    assert answers(tree.top, pictures[:3]) == expected[:3]


def test_a_group_alone(tree: Tree, pictures: list[Any], expected: list[bytes], bin_folder: Path) -> None:
    """A group without workers offers nothing; its workers and their hub may come and go."""
    tree.top.start_manager()
    tree.top.start_group("g1", tree.below)
    tree.below.start_worker("b0")
    tree.top.wait_for_sub_bundles(workers=1)
    assert "g1 has joined: a group of 1, 120 MB" in tree.top.log("manager")
    assert answers(tree.top, pictures[:2]) == expected[:2]
    shown = subprocess.run(
        [bin_folder / "hyps-manager", "status", "--hub", tree.top.url], capture_output=True, text=True, check=True
    )
    assert re.search(r"g1 .* a group of 1 *$", shown.stdout, re.MULTILINE)
    tree.below.kill("b0")
    wait_for("its loss", lambda: "g1 is gone" in tree.top.log("manager"))
    tree.below.start_worker("b0")
    tree.below.start_worker("b1")
    assert answers(tree.top, pictures[:8]) == expected[:8]
    tree.below.kill("hub")
    time.sleep(0.2)
    tree.below.start_hub()
    assert answers(tree.top, pictures[:3]) == expected[:3]
    tree.top.processes["g1"].terminate()
    assert tree.top.processes["g1"].wait(10) == 143


def test_three_levels(tree: Tree, pictures: list[Any], expected: list[bytes]) -> None:
    deepest = tree.level("deepest")
    deepest.start_worker("d0")
    tree.below.start_group("g2", deepest)
    tree.below.start_worker("b0")
    tree.start(["g2", "b0"])
    wait_for("all of g1's workers", lambda: "g2: placed -> loading" in tree.top.log("g1"))
    assert answers(tree.top, pictures[:8]) == expected[:8]
    assert "inferring -> computed" in tree.below.log("g2")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--sub-hub", "mqtt://127.0.0.1:1883"], "must name another hub than --hub"),
        (["--sub-hub", "mqtt://127.0.0.1:1", "--memory", "1GB"], "leave them out with --sub-hub"),
        (["--sub-join", "{}"], "the join file below is for 'b0'"),
        (["--sub-join", "nothing"], "cannot read nothing"),
    ],
    ids=["same hub", "memory", "join file of a worker", "no file"],
)
def test_what_the_user_can_mend(bin_folder: Path, tmp_path: Path, options: list[str], reason: str) -> None:
    file = tmp_path / "b0.join"
    file.write_bytes(encode_join(Join(hub="mqtts://127.0.0.1:8883", name="b0", password="p")))
    command: list[str | Path] = [
        bin_folder / "hyps-worker",
        "--hub",
        "mqtt://127.0.0.1:1883",
        "--name",
        "g1",
        "--cache",
        tmp_path,
    ]
    done = subprocess.run(
        [*command, *(each.format(file) for each in options)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert reason in done.stderr


def test_a_client_fails_when_its_manager_ends(layers: Path, pictures: list[Any]) -> None:
    """A client's link raises when its manager has ended: its jobs fail, and do not wait forever."""

    class Ending:
        address, connected = parse_address("mqtt://127.0.0.1"), True

        def __init__(self, name: str, *, received: Receiver, connected: Callable[[], None]) -> None:
            self._received, self._said = received, 0

        def open(self, wait_s: float = 0, *, patient: bool = False) -> None: ...

        def subscribe(self, topics: Sequence[str]) -> None: ...

        def wait_until_sent(self, all_but_bytes: int, timeout_s: float | None = None) -> bool:
            return True

        def close(self) -> None: ...

        def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> None:
            self._said += 1
            if self._said > 1:
                raise HubError("it has ended")
            job = msgspec.json.decode(payload)["job"]
            self._received(topic, messages.encode_message(client_messages.Accepted(job=job)), lambda: None)

    with closing(ClusterEngine(layers, None, None, link=Ending)) as engine, pytest.raises(HubError, match="has ended"):
        run_one(engine, pictures[0])


def test_a_group_reports_the_energy_of_its_boards(tree: Tree) -> None:
    """One board below has an estimate, the other knows nothing; nothing measures the group's own machine."""
    tree.below.start_worker("v0", "--watts", "1.5,4")
    tree.below.start_worker("v1")
    tree.start(["v0", "v1"])
    latest: dict[str, Any] = {}

    def is_known() -> bool:
        command = tree.top.command("hyps-manager", "status", "--hub", tree.top.url, "--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        latest.update(json.loads(done.stdout or "{}"))
        return bool(latest.get("energy"))

    wait_for(lambda: f"the board's energy: {latest}", is_known)
    (board,) = latest["energy"]["boards"]
    assert (board["name"], board["source"]) == ("g1/v0", "estimated from --watts")
    assert {"w0", "g1", "1 board below g1"} <= {*latest["energy"]["unknown"]}
