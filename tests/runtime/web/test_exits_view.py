"""Show on the page, and count in the metrics, which exits answer; the policy is the manager's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from prometheus_client import generate_latest

from hyps.compiler.api import compile_model
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.manager.exit_counters import ExitCounters
from hyps.runtime.web.metrics import registry
from hyps.runtime.web.schemas import ExitsView, StatusView
from tests.compiler.onnxes import saved
from tests.exits import EXITS, WIDTH, exiting_network
from tests.runtime.cluster.devices import Devices
from tests.runtime.web.conftest import launched
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def exiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exiting")
    compile_model(saved(folder / "n.onnx", exiting_network()), folder / "bundle", memory_bytes=100_000_000, exits=["auto"])
    return folder / "bundle"


def test_metrics_count_exits_and_offloads_by_outcome() -> None:
    exits = ExitsView(answered={"early": 5, "scores": 2}, begun={"early": 3}, offloaded={"mqtt://cloud": 4}, fell_back=1)
    view = StatusView(
        model="m", bundle="b", state="serving", problem=None, hub=True, jobs=0, answered=7, answered_per_s=0.0, workers=[],
        shares=[], exits=exits,
    )  # fmt: skip
    lines = generate_latest(registry(view)).decode().splitlines()
    assert 'hyps_exits_total{exit="early"} 5.0' in lines
    assert 'hyps_exits_total{exit="scores"} 2.0' in lines
    assert 'hyps_rests_total{exit="early"} 3.0' in lines
    assert 'hyps_offloads_total{outcome="answered",tier="mqtt://cloud"} 4.0' in lines
    assert 'hyps_offloads_total{outcome="fell_back",tier=""} 1.0' in lines


def test_the_deepest_exit_counts_and_tiers_are_bounded(exiting: Path) -> None:
    counters = ExitCounters(read_manifest(exiting))
    counters.ended(EXITS[:2], "")
    counters.began(1)
    for number in range(150):
        counters.ended(EXITS, f"mqtt://{number}")
    line = counters.line()
    assert line
    assert line.answered == {"early": 0, "middle": 1, "late": 0, "scores": 150}
    assert line.begun == {"early": 1}
    assert (len(line.offloaded), line.offloaded["others"]) == (101, 50)


def test_page_and_metrics_of_real_answers(devices: Devices, exiting: Path, tmp_path: Path, browser: Browser) -> None:
    devices.bundle = exiting
    web = launched(devices, tmp_path, 1, "--exit-policy", "threshold:0")
    wait_for("placed steps", web.ready)
    np.save(tmp_path / "x.npy", np.ones((1, WIDTH), np.float32))
    job: dict[str, Any] = {}
    for _ in range(2):
        job = web.done("jobs", web("POST", "/api/jobs?name=x.npy", data=(tmp_path / "x.npy").read_bytes()))
    assert job["state"] == "done"
    assert (job["exit"]["output"], job["exit"]["number"], job["exit"]["count"]) == ("early", 1, 4)
    assert web.get("/api/status")["exits"]["answered"] == {"early": 2, "middle": 0, "late": 0, "scores": 0}
    assert 'hyps_exits_total{exit="early"} 2.0' in web("GET", "/metrics").text
    page = browser.new_page()
    page.goto(f"{web.url}/#token={web.token}")
    page.locator("#exits-now", has_text="2 of 2 answers before the last exit").wait_for()
    assert page.locator("#exits-bars li .label").all_text_contents() == [*EXITS]
    assert "exit 1 of 4, early" in (page.locator("#job-state").text_content() or "")
    page.close()
