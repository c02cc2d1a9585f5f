"""Managers with their page, workers and a hub, each in its own process; and a browser."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from tests.programs import program
from tests.runtime.cluster.conftest import devices, mosquitto  # noqa: F401
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S, wait_for

Json = Any
#: The workers of the manager that tests share.
WORKERS = ("w0", "w1", "w2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A manager's REST interface; requests carry its token unless a test gives another."""

    devices: Devices
    url: str
    token: str
    library: Path

    def __call__(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        verify = options.pop("verify", True)
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=PATIENCE_S, verify=verify, **options)

    def get(self, path: str) -> Json:
        answer = self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def done(self, kind: str, started: requests.Response) -> Json:
        """Return the build or job that was started, once it has ended."""
        assert started.status_code == 202, started.text
        path = f"/api/{kind}/{started.json()['id']}"
        wait_for(f"the end of {path}", lambda: self.get(path)["state"] not in ("running", "waiting"))
        return self.get(path)

    def worker(self, name: str) -> Json:
        return next((worker for worker in self.get("/api/workers") if worker["name"] == name), None)

    def homes(self) -> list[set[str]]:
        """Return the workers of each sub-bundle."""
        return [set(share["homes"]) for share in self.get("/api/status")["shares"]]

    def ready(self) -> bool:
        status = self.get("/api/status")
        states = {state for share in status["shares"] for state in share["homes"].values()}
        return bool(states) and states <= {"loaded", "inferring", "computed"}


def launched(cluster: Devices, folder: Path, workers: int, *options: str | Path, bundle: bool = True) -> Web:
    """Start a manager with its page, and workers."""
    library = folder / "library"
    page: list[str | Path] = ["--web", "127.0.0.1:0", "--library", library, "--hub", cluster.url, "--verbose"]
    page += options if "--placement" in options else ["--placement", "pipeline", *options]
    first: list[str | Path] = [cluster.bundle, "--journal", folder / "journal"] if bundle else []
    said_before = len(cluster.log("manager"))
    cluster.start_command("manager", "hyps-manager", ["serve", *first, *page])
    for number in range(workers):
        cluster.start_worker(f"w{number}")
    pattern = re.compile(r"the page: (https?://\S+?)/(?:#token=(\S+))?$", re.MULTILINE)
    wait_for(
        lambda: f"the page's address: {cluster.log('manager')}", lambda: pattern.search(cluster.log("manager"), said_before)
    )
    match = pattern.search(cluster.log("manager"), said_before)
    assert match
    return Web(devices=cluster, url=match[1], token=match[2] or "", library=library)


@pytest.fixture
def start_web(devices: Devices, tmp_path: Path) -> Callable[..., Web]:
    """Start a manager with its page, and workers, for one test."""

    def start(workers: int = 3, *options: str | Path, bundle: bool = True) -> Web:
        return launched(devices, tmp_path, workers, *options, bundle=bundle)

    return start


@pytest.fixture(scope="session")
def shared_web(
    layers: Path,
    bin_folder: Path,
    mosquitto: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Web]:
    """A manager and three workers, which serve the trained network cut after each layer, for all tests."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("web")
        cluster = Devices(stack, folder, layers, bin_folder, mosquitto, Settings())
        cluster.start_hub()
        yield launched(cluster, folder, len(WORKERS), "--workers", str(len(WORKERS)), "--rebalance", "off")


@pytest.fixture
def web(shared_web: Web) -> Web:
    """The shared manager, as it was at first but for its list of past jobs and builds."""
    restore(shared_web)
    return shared_web


@pytest.fixture(scope="session")
def idle_web(
    layers: Path,
    bin_folder: Path,
    mosquitto: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Web]:
    """A manager without workers that serves nothing and takes small files only, for tests that leave it so."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("idle")
        cluster = Devices(stack, folder, layers, bin_folder, mosquitto, Settings())
        cluster.start_hub()
        yield launched(cluster, folder, 0, "--upload-limit", "1MB", "--input-limit", "100KB", bundle=False)


def restore(web: Web) -> None:
    """Undo what a test before has done to the manager, its library or its workers."""
    for kind in ("builds", "jobs"):
        for each in web.get(f"/api/{kind}"):
            if each["state"] in ("running", "waiting"):
                web("DELETE", f"/api/{kind}/{each['id']}")
    for name in WORKERS:
        if name not in web.devices.processes:
            web.devices.start_worker(name)
        web.devices.processes[name].send_signal(signal.SIGCONT)
    wait_for("all workers", lambda: [worker["online"] for worker in web.get("/api/workers")] == [True] * len(WORKERS))
    for worker in web.get("/api/workers"):
        if worker["drained"]:
            web("DELETE", f"/api/workers/{worker['name']}/drain")
    given = web.devices.bundle.name
    if web.get("/api/status")["bundle"] != given:
        assert web("PUT", "/api/served", json={"bundle": given}).status_code == 200
    for kind in ("models", "bundles"):
        for each in web.get(f"/api/{kind}"):
            if each["name"] != given:
                web("DELETE", f"/api/{kind}/{each['name']}")
    homes = web.homes()
    if any(len(each) != 1 for each in homes) or set().union(*homes) != set(WORKERS):
        web("PUT", "/api/placement", json={"homes": None})
    wait_for("loaded sub-bundles", lambda: web.ready() and set.union(*web.homes()) == set(WORKERS))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The distribution's Chromium, with a camera that shows a moving pattern."""
    chromium = program("chromium")
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=[*options, *camera])
        yield running
        running.close()


class Stream:
    """The server-sent events of a manager, in order."""

    def __init__(self, web: Web) -> None:
        headers = {"authorization": f"Bearer {web.token}"}
        self._answer = requests.get(f"{web.url}/api/events", headers=headers, stream=True, timeout=PATIENCE_S)
        self._lines = self._answer.iter_lines()

    def next(self) -> tuple[str, Json]:
        kind = ""
        for line in self._lines:
            text = line.decode()
            if text.startswith("event: "):
                kind = text.removeprefix("event: ")
            elif text.startswith("data: "):
                return kind, json.loads(text.removeprefix("data: "))
        raise AssertionError("the stream ended")

    def until(self, accepts: Callable[[str, Json], bool]) -> Json:
        """Return the data of the first event that is accepted."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            kind, data = self.next()
            if accepts(kind, data):
                return data
        raise AssertionError(f"no such event within {PATIENCE_S} s")

    def close(self) -> None:
        self._answer.close()
