"""Test that a stolen credential of any role cannot bring the cluster to a stand for the others.

By default each credential sends 500 messages; ``--hostile 10000`` takes two minutes for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.broker.hub_files import add_user, init_hub, write_secret
from hyps.runtime.cluster.broker.join import Join, encode_join
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.manager.options import Timeouts
from hyps.runtime.cluster.protocol.topics import Role
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.runtime.cluster import thief
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.mosquitto import free_port, running
from tests.waiting import wait_for

#: What is stolen, by role.
STOLEN = {Role.WORKER: "stolen_worker", Role.CLIENT: "stolen_client", Role.VIEWER: "stolen_viewer"}
TIMEOUTS = Timeouts(settle_s=0.4, silence_s=4, load_retry_s=0.4, status_expiry_s=2, obey_s=15, load_s=30)


class Guarded:
    """A cluster at a hub with passwords: a manager, two workers, and credentials that are stolen."""

    def __init__(self, devices: Devices, folder: Path) -> None:
        self.devices, self.folder = devices, folder
        self.joins = {
            name: Join(**msgspec.json.decode((folder / f"{name}.join").read_bytes())) for name in [*STOLEN.values(), "me"]
        }
        self.bundle_sha256 = hashlib.sha256((devices.bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        generator = np.random.default_rng(9)
        self._pictures: list[dict[str, Any]] = [
            {"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(4)
        ]
        local = load_executor(devices.bundle)
        self._expected = [local.run(picture)["scores"].tobytes() for picture in self._pictures]

    def log(self) -> str:
        return self.devices.log("manager")

    def check(self) -> None:
        """Compute some pictures as an honest client; look for traces of a fall in the logs."""
        with closing(ClusterEngine(self.devices.bundle, None, self.folder / "me.join")) as engine:
            found = [*engine.run(in_memory(self._pictures))]
        assert [result.outputs["scores"].tobytes() for result in found if not result.error] == self._expected
        log = self.log()
        assert "Traceback" not in log
        assert "a bug" not in log
        assert "the hub is gone" not in log
        assert "\x1b" not in log


@pytest.fixture
def guarded(devices: Devices, mosquitto: str, tmp_path: Path) -> Iterator[Guarded]:
    hub, port = tmp_path / "hub", free_port()
    init_hub(hub, ["127.0.0.1"], port)
    users = {"w0": Role.WORKER, "w1": Role.WORKER, "me": Role.CLIENT} | {name: role for role, name in STOLEN.items()}
    for name, role in users.items():
        write_secret(hub / f"{name}.join", encode_join(add_user(hub, role, name)))
    devices.settings = Settings(timeouts=TIMEOUTS)
    with running(mosquitto, hub / "mosquitto.conf", port):
        devices.start_manager("--join", str(hub / "manager.join"), "--workers", "2", "--lease", "30")
        for name in ("w0", "w1"):
            devices.start_worker(name, "--join", str(hub / f"{name}.join"))
        devices.wait_for_sub_bundles(workers=2)
        yield Guarded(devices, hub)
        devices._end()  # before the hub


@pytest.mark.parametrize("role", STOLEN)
def test_messages_of_every_sort(guarded: Guarded, role: Role, pytestconfig: pytest.Config) -> None:
    count = int(pytestconfig.getoption("hostile"))
    thief.send(guarded.joins[STOLEN[role]], role, guarded.bundle_sha256, count)
    guarded.check()


@pytest.mark.parametrize(
    "forged",
    [{"epoch": 1 << 62}, {"epoch": 1 << 61, "macs_per_s": 4 * 10**18}, {"memory_bytes": 1 << 62}, {"group": 1 << 40}],
    ids=str,
)
def test_an_absurd_claim_is_named_and_not_believed(guarded: Guarded, forged: dict[str, int]) -> None:
    state = msgspec.structs.replace(thief.GREEDY, **forged)
    connection = thief.claim(guarded.joins["stolen_worker"], state)
    if forged.keys() != {"epoch"}:
        wait_for("its name", lambda: "on hyps/workers/stolen_worker/state: impossible claim" in guarded.log())
        assert "stolen_worker has joined" not in guarded.log()
    guarded.check()
    connection.disconnect()


@pytest.mark.regression  # a minute of waiting
def test_a_worker_that_never_obeys_loses_its_work(guarded: Guarded) -> None:
    """It claims all that is possible, gets every sub-bundle, and never loads one; started again, it gets nothing."""
    connection = thief.claim(guarded.joins["stolen_worker"], thief.GREEDY)
    wait_for("its work", lambda: "on stolen_worker: created -> placed" in guarded.log())
    guarded.check()
    log = guarded.log()
    assert "stolen_worker is set aside: it does not answer its orders" in log
    for number, session in enumerate(("8", "7"), 1):
        connection.disconnect()
        connection = thief.claim(guarded.joins["stolen_worker"], msgspec.structs.replace(thief.GREEDY, session=session * 32))
        joined = number + 1
        wait_for("it again", lambda: guarded.log().count("stolen_worker has joined") == joined)  # noqa: B023
        guarded.check()
        if number == 1:
            wait_for("its second loss", lambda: guarded.log().count("stolen_worker is set aside") == 2)
    assert "-> placed" not in "".join(
        line for line in guarded.log().rpartition("stolen_worker has joined")[2].splitlines() if "stolen_worker" in line
    )
    connection.disconnect()


def test_a_worker_that_comes_and_goes_all_the_time_is_ignored(guarded: Guarded) -> None:
    for number in range(100):
        state = msgspec.structs.replace(thief.GREEDY, session=f"{number:032x}")
        thief.claim(guarded.joins["stolen_worker"], state).disconnect()
    wait_for("its name", lambda: "stolen_worker is ignored until it is quiet" in guarded.log())
    assert guarded.log().count("stolen_worker has joined") <= 20
    guarded.check()
