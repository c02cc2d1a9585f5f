"""A manager with its page, three workers and a hub, each a process of its own; and a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from tests.runtime.cluster.conftest import devices, mosquitto  # noqa: F401
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.mosquitto import wait_for

Json = Any
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A manager's REST interface; requests carry the token unless told otherwise."""

    devices: Devices
    url: str
    token: str
    library: Path

    def __call__(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        verify = options.pop("verify", True)
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=TIMEOUT_S, verify=verify, **options)

    def get(self, path: str) -> Json:
        answer = self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def done(self, kind: str, started: requests.Response, seconds: float = 60) -> Json:
        """The build or job that was started, when it has ended."""
        assert started.status_code == 202, started.text
        path = f"/api/{kind}/{started.json()['id']}"
        wait_for(f"the end of {path}", lambda: self.get(path)["state"] not in ("running", "waiting"), seconds)
        return self.get(path)

    def worker(self, name: str) -> Json:
        return next((worker for worker in self.get("/api/workers") if worker["name"] == name), None)

    def homes(self) -> list[set[str]]:
        return [set(share["homes"]) for share in self.get("/api/status")["shares"]]

    def ready(self) -> bool:
        status = self.get("/api/status")
        states = {state for share in status["shares"] for state in share["homes"].values()}
        return bool(states) and states <= {"loaded", "inferring", "computed"}


@pytest.fixture
def start_web(devices: Devices, tmp_path: Path) -> Callable[..., Web]:  # noqa: F811
    """Start a manager with its page, and workers."""

    def start(workers: int = 3, *options: str | Path, bundle: bool = True) -> Web:
        library = tmp_path / "library"
        page: list[str | Path] = ["--web", "127.0.0.1:0", "--library", library, "--hub", devices.url, "--verbose", *options]
        first: list[str | Path] = [devices.bundle, "--journal", tmp_path / "journal"] if bundle else []
        said_before = len(devices.log("manager"))
        devices.start_command("manager", "hyps-manager", ["serve", *first, *page])
        for number in range(workers):
            devices.start_worker(f"w{number}")
        pattern = re.compile(r"the page: (https?://\S+?)/(?:#token=(\S+))?$", re.MULTILINE)
        wait_for("the page's address", lambda: pattern.search(devices.log("manager"), said_before))
        found = pattern.search(devices.log("manager"), said_before)
        assert found
        return Web(devices=devices, url=found[1], token=found[2] or "", library=library)

    return start


@pytest.fixture
def web(start_web: Callable[..., Web]) -> Web:
    """With three workers that have loaded the trained network, cut behind each layer."""
    made = start_web(3, "--workers", "3")
    wait_for("loaded shares", made.ready)
    return made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The distribution's Chromium, with a camera that shows a moving pattern."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("needs Chromium: apt-get install chromium")
        pytest.skip("needs Chromium: apt-get install chromium")
    options = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=[*options, *camera])
        yield launched
        launched.close()


class Stream:
    """Server-sent events as they come."""

    def __init__(self, web: Web) -> None:
        headers = {"authorization": f"Bearer {web.token}"}
        self._answer = requests.get(f"{web.url}/api/events", headers=headers, stream=True, timeout=TIMEOUT_S)
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

    def until(self, wanted: Callable[[str, Json], bool], seconds: float = 20) -> Json:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            kind, data = self.next()
            if wanted(kind, data):
                return data
        raise AssertionError("it did not come")

    def close(self) -> None:
        self._answer.close()
