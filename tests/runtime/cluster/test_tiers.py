"""Stack tiers of real processes: a device below an edge below a cloud, each of which may exit or offload."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.execution.engine import in_memory
from tests.exits import EXITS, write_table
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.runtime.cluster.offloads import OFFLOAD_AT, Arrays, Wire, control, linked, reports, taken
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture
def cloud(edge: Devices, exiting: Path, bin_folder: Path, mosquitto: str, tmp_path: Path) -> Iterator[Devices]:
    """Another cluster of the same bundle, with a manager and a worker."""
    (tmp_path / "cloud").mkdir()
    with ExitStack() as stack:
        started = Devices(stack, tmp_path / "cloud", exiting, bin_folder, mosquitto, Settings())
        started.start_hub()
        started.start(1)
        yield started


def test_three_tiers(edge: Devices, cloud: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path) -> None:
    """The device offloads behind the first exit, the edge behind the third; then the cloud dies, and nothing is lost."""
    above = write_table(edge.bundle, tmp_path / "edge.json", OFFLOAD_AT[2])
    edge.start(1, "--exit-policy", str(above), "--offload", cloud.url)
    policy = write_table(edge.bundle, tmp_path / "device.json", OFFLOAD_AT[0])
    manifest, wire = read_manifest(edge.bundle), Wire(cloud.url)
    with closing(linked(edge.bundle, edge.url)) as tier:
        exits = control(edge.bundle, tier, policy)

        def all_above() -> bool:
            found = reports(exits, edge.bundle, samples, expected)
            wanted = {f"{edge.url} > {cloud.url}"}
            return {report.offload.at if report.offload else "" for report in found} == wanted

        wait_for("the edge's link to the cloud", all_above)
        assert wire.sent.keys() == {*rest_inputs(manifest, 3)}
        assert {submit["after_exit"] for submit in wire.submits} == {3}
        wire.connection.close()
        cloud.freeze("w0")
        for name in ("manager", "hub"):
            cloud.kill(name)
        found = reports(exits, edge.bundle, samples, expected)
        assert {report.offload.at for report in found if report.offload} <= {edge.url, ""}
        wait_for("answers of the edge alone", lambda: all(
            report.offload and report.offload.at == edge.url for report in reports(exits, edge.bundle, samples, expected)
        ))  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_an_edge_exits(edge: Devices, samples: list[Any], expected: list[Arrays], tmp_path: Path, workers: int) -> None:
    """For what a device offloads, and for whole submissions."""
    edge.start(workers, "--exit-policy", "threshold:0")
    with closing(linked(edge.bundle, edge.url)) as tier:
        for number in (0, 1, 2):
            policy = write_table(edge.bundle, tmp_path / "p.json", OFFLOAD_AT[number])
            exits = control(edge.bundle, tier, policy)
            taken(exits, edge.bundle, samples, expected)
            for report in reports(exits, edge.bundle, samples, expected):
                assert (report.number, report.ended_by) == ((number + 2, "policy") if number < 2 else (4, "network"))
                assert report.steps_not_run == 2 - number
                assert report.offload
                assert report.offload.at == edge.url
    with closing(edge.engine()) as engine:
        whole = list(engine.run(in_memory(samples)))
    for result, right in zip(whole, expected, strict=True):
        assert result.exit
        assert (result.exit.number, result.exit.ended_by, [*result.outputs]) == (1, "policy", [EXITS[0]])
        assert np.array_equal(result.outputs[EXITS[0]], right[EXITS[0]])


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--offload", "mqtt://cloud"], "--offload needs a policy that offloads"),
        (["--exit-policy", "sometimes"], "is no policy"),
        (["--exit-policy", "missing.json"], "cannot read missing.json"),
    ],
    ids=str,
)
def test_a_managers_options(edge: Devices, options: list[str], refused: str) -> None:
    command = edge.command("hyps-manager", edge.bundle, "--hub", edge.url, *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert refused in done.stderr
