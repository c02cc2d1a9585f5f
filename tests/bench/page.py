"""Measure how soon the manager's page shows what happens: ``make bench-page``, which also writes ``docs/page.md``."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import requests
from onnx import helper, numpy_helper
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from tests.bench.clusters import WIDTH, mosquitto, table
from tests.repository import BIN, ROOT
from tests.runtime.cluster.devices import Devices
from tests.waiting import wait_for

PAGE = ROOT / "docs" / "page.md"
HEAD = """\
# The manager's page, measured

Written by `make bench-page`; do not edit. A hub, a manager, {boards} workers, and headless Chromium, all on one machine:
{machine}. {versions}. Measured {when}.
"""
BOARDS, STEPS = 20, 200
SHOTS, LOSSES = 20, 5
#: Returns the frames per second, counted for three seconds.
_FRAMES = """() => new Promise((done) => {
  let frames = 0;
  const began = performance.now();
  const next = (now) => {
    frames += 1;
    now - began < 3000 ? requestAnimationFrame(next) : done(frames / (now - began) * 1000);
  };
  requestAnimationFrame(next);
})"""
#: Returns the time, by the page's clock, at which an element first matches the selector.
_WHEN = """(wanted) => new Promise((done) => {
  const look = () => document.querySelector(wanted) ? done(Date.now()) : setTimeout(look, 2);
  look();
})"""


def main() -> None:
    """Run the benchmark in a temporary folder."""
    out = Console(width=WIDTH, highlight=False, record=True)
    with tempfile.TemporaryDirectory(prefix="hyps-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        bundle = chain(folder)
        devices = Devices(stack, folder, bundle, BIN, mosquitto())
        devices.start_hub()
        page_options: list[str | Path] = [
            "--web",
            "127.0.0.1:0",
            "--library",
            folder / "library",
            "--journal",
            folder / "journal",
        ]
        devices.start_command(
            "manager", "hyps-manager", ["serve", bundle, "--hub", devices.url, "--workers", str(BOARDS), *page_options]
        )
        for number in range(BOARDS):
            devices.start_worker(f"w{number:02}", memory="70MB")
        wait_for("the page", lambda: "#token=" in devices.log("manager"))
        url, token = re.findall(r"the page: (\S+)#token=(\S+)", devices.log("manager"))[0]
        head = {"authorization": f"Bearer {token}"}
        wait_for("all sub-bundles", lambda: _ready(requests.get(f"{url}api/status", headers=head, timeout=10).json()))
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            measure(devices, chromium.new_page, url, token, out)
            chromium.close()
    model = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    head_text = HEAD.format(
        boards=BOARDS,
        machine=f"{os.cpu_count()} cores of {model[0] if model else platform.machine()}, Linux {platform.release()}",
        versions=", ".join(f"{name} {metadata.version(name)}" for name in ("hyps", "fastapi", "uvicorn", "playwright")),
        when=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    text = "\n".join(line.rstrip() for line in out.export_text().splitlines())
    PAGE.write_text(f"{head_text}\n```\n{text}\n```\n")


def chain(folder: Path) -> Path:
    """Compile a network of 200 small layers into a bundle with a partition for each, and return its folder."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(STEPS):
        weights.append(numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32) / 8, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"], f"fc{index}"))
    ends = [helper.make_tensor_value_info(name, 1, [1, 64]) for name in ("x0", f"x{STEPS}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "chain.onnx")
    options: list[str | Path] = ["--memory", "62MB", "--split", "layers", "--threads", "1", "-o", folder / "chain"]
    subprocess.run([BIN / "hypsc", "compile", folder / "chain.onnx", *options], check=True, capture_output=True)
    return folder / "chain"


def measure(devices: Devices, new_page: Callable[[], Page], url: str, token: str, out: Console) -> None:
    """Measure everything that has a bound, and print it as one table."""
    head = {"authorization": f"Bearer {token}"}
    rows = table(f"{BOARDS} boards, {STEPS} partitions", "what", "median", "worst", "bound")
    loads = []
    for _ in range(5):
        page = new_page()
        began = time.perf_counter()
        page.goto(f"{url}#token={token}")
        page.locator("[data-worker]").nth(BOARDS - 1).wait_for()
        page.locator("#graph .node").nth(STEPS - 1).wait_for()
        loads.append(time.perf_counter() - began)
        page.close()
    rows.add_row("s until all boards and the graph are shown", *_cells(loads), "1")
    page = new_page()
    page.goto(f"{url}#token={token}")
    page.locator("#graph .node").nth(STEPS - 1).wait_for()
    shown = []
    for _ in range(SHOTS):
        answer = requests.post(f"{url}api/jobs?name=x", headers=head, data=b"no image", timeout=10)
        said = time.time()
        shown.append(page.evaluate(_WHEN, f'[data-job="{answer.json()["id"]}"]') / 1e3 - said)
        time.sleep(0.1)
    rows.add_row("s from a job's answer to its line on the page", *_cells(shown), "0.2")
    with subprocess.Popen(
        [BIN / "python", "-c", _LOAD.format(url=url, token=token)], stdout=subprocess.PIPE, text=True
    ) as load:
        frames = [page.evaluate(_FRAMES) for _ in range(3)]
        load.terminate()
    rows.add_row("frames a second, while jobs run", f"{statistics.median(frames):.0f}", f"{min(frames):.0f}", "smooth")
    gone = []
    for number in range(LOSSES):
        devices.freeze(f"w{number:02}")  # like a board whose cable was pulled: it does not disconnect
        cut = time.time()
        gone.append(page.evaluate(_WHEN, f'[data-worker="w{number:02}"].gone') / 1e3 - cut)
    rows.add_row("s from a pulled cable to a red board", *_cells(gone), "2")
    out.print(rows)
    now, most = (devices.resident_bytes("manager", figure) / 1e6 for figure in ("VmRSS", "VmHWM"))
    out.print(f"the manager with its page: {now:.0f} MB resident, {most:.0f} at most")


_LOAD = """
import io, numpy as np, requests, time
tensor = io.BytesIO()
np.save(tensor, np.ones((1, 64), np.float32))
while True:
    requests.post("{url}api/jobs?name=x", headers={{"authorization": "Bearer {token}"}}, data=tensor.getvalue(), timeout=10)
    time.sleep(0.2)
"""


def _ready(status: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    states = {state for share in status["shares"] for state in share["homes"].values()}
    return bool(states) and states <= {"loaded", "inferring", "computed"}


def _cells(seconds: list[float]) -> tuple[str, str]:
    return f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}"


if __name__ == "__main__":
    main()
