"""Test that coded shards move under a stream to faster boards, with real processes, and stay on different ones."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.execution.loading import load_executor
from tests.bench.faults import journal_states
from tests.runtime.cluster.codes_bundle import compile_coded
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S, wait_for

#: The seconds that one board would take for an image, and the largest error of a score, as a part of the largest.
WHOLE_S, TOLERANCE = 0.8, 1e-5
WORKERS = ("w0", "w1", "w2", "w3")


def shard_homes(devices: Devices) -> list[tuple[str, ...]]:
    """Return the workers of each shard of conv4_1, parity shards included, by the manager's status."""
    command = devices.command("hyps-manager", "status", "--hub", devices.url, "--json")
    shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    lines = json.loads(shown.splitlines()[-1])["sub_bundles"]
    steps = [step.name for step in read_manifest(devices.bundle).steps]
    shards = [number for number, name in enumerate(steps) if re.search("conv4_1-(shard|parity)", name)]
    return [(*line["homes"],) for shard in shards for line in lines if line["start"] <= shard < line["stop"]]


def test_shards_move_and_stay_on_different_boards(root: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> None:
    bundle = compile_coded(root, bin_folder, tmp_path / "bundle", 1)
    pace = sum(step.multiply_adds for step in read_manifest(bundle).steps) / WHOLE_S
    generator = np.random.default_rng(3)
    pictures = [{"image": generator.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(8)]
    executor = load_executor(bundle)
    expected = [executor.run(picture)["scores"] for picture in pictures]
    over, seen = threading.Event(), list[list[tuple[str, ...]]]()

    with ExitStack() as stack:
        devices = Devices(stack, tmp_path, bundle, bin_folder, mosquitto, Settings(restless=True))
        devices.start_hub()
        devices.start_manager("--workers", "4", "--hedge", "never", "--rebalance", "on")
        for name in WORKERS:
            devices.start_paced(name, pace)
        devices.wait_for_sub_bundles(workers=4)
        wait_for("one board a shard", lambda: [len(homes) for homes in shard_homes(devices)] == [1, 1, 1])
        before = shard_homes(devices)
        (slow,) = before[1]

        def slow_down() -> None:
            try:
                time.sleep(2)
                devices.pace(slow, pace / 32)  # now its shard takes longer than any other run
                wait_for("a move", lambda: "steps move" in devices.log("manager"))
                wait_for("its end", lambda: (slow,) not in shard_homes(devices) or "move is done" in devices.log("manager"))
                wait_for("one board a shard", lambda: {len(homes) for homes in shard_homes(devices)} == {1})
                seen.append(shard_homes(devices))
            finally:
                over.set()

        def endless() -> Iterator[Any]:
            number = 0
            while not over.is_set():
                yield pictures[number % len(pictures)]
                number += 1

        thread = threading.Thread(target=slow_down, daemon=True)
        thread.start()
        count = 0
        with closing(devices.engine()) as engine:
            for done in engine.run(in_memory(endless())):
                right = expected[count % len(expected)]
                assert (done.number, done.error) == (count, None)
                assert np.abs(done.outputs["scores"] - right).max() <= TOLERANCE * np.abs(right).max()
                count += 1
        thread.join()
        assert [len({*homes}) for homes in (before, *seen)] == [3, 3]  # a board for each of the three
        wait_for("delivery", lambda: journal_states(tmp_path / "journal") == {"delivered": count})
        assert (slow,) not in seen[0]
