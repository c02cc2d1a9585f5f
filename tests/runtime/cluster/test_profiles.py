"""A real cluster measures its boards: workers send profiles, answers are timed, and the database has both."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.messages import WorkerState, decode_state
from hyps.runtime.execution.engine import in_memory
from hyps.runtime.profiling.board_facts import this_board
from hyps.runtime.profiling.measure_steps import profile_steps
from hyps.runtime.profiling.profile_database import ProfileDatabase
from hyps.runtime.profiling.profile_file import write_step_profile
from hyps.runtime.profiling.step_content import step_contents
from hyps.runtime.profiling.step_seconds import ProfiledSeconds, workload_seconds
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings
from tests.waiting import PATIENCE_S, wait_for


def stop_manager(devices: Devices) -> None:
    """End the manager as an operator does; it writes what is left."""
    process = devices.processes["manager"]
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


def states(devices: Devices) -> dict[str, WorkerState]:
    """Return the retained states of the workers at the hub."""
    found: dict[str, WorkerState] = {}

    def received(topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        found[topic.split("/")[2]] = decode_state(payload)

    seen = Connection(
        Join(hub=devices.url),
        "observer",
        received=received,
        connected=lambda: seen.subscribe(["hyps/workers/+/state"]),
    )
    seen.open()
    wait_for("a state of each worker", lambda: {"w0", "w1"} <= {name for name, state in found.items() if state.link})
    seen.close()
    return found


def test_what_workers_measure_is_in_the_database(devices: Devices, tmp_path: Path, bin_folder: Path) -> None:
    write_step_profile(tmp_path / "own.json", profile_steps(devices.bundle, (1,), 1, board_class="this one"))
    devices.settings = Settings(measures_link=True)
    database = tmp_path / "measured.sqlite"
    devices.start_manager("--workers", "2", "--profiles", str(database))
    devices.start_worker("w0", memory="400MB")
    devices.start_worker("w1", "--profile", str(tmp_path / "own.json"), memory="400MB")
    devices.wait_for_sub_bundles(workers=1)
    known = states(devices)
    assert known["w0"].board == this_board()
    assert known["w0"].board_class == this_board().board_class
    assert known["w1"].board_class == "this one"
    for state in known.values():
        assert state.link
        assert state.link.up_bytes_per_s > 1_000_000
    image = np.zeros((1, 3, 32, 32), np.float32)
    engine = devices.engine()
    assert all(result.error is None for result in engine.run(in_memory([{"image": image}] * 12)))
    engine.close()
    stop_manager(devices)

    listing = subprocess.run(
        [bin_folder / "hyps-manager", "profiles", "--profiles", database, "--json"], capture_output=True, check=True
    )
    classes = {each["board_class"]: each for each in json.loads(listing.stdout)}
    assert "worker" in classes["this one"]["sources"]
    assert classes["this one"]["steps"] == 14
    assert any("answers" in each["sources"] for each in classes.values())
    opened = ProfileDatabase(database)
    contents = step_contents(devices.bundle, read_manifest(devices.bundle))
    estimates = workload_seconds(contents, ProfiledSeconds(opened.measurements()), "this one")
    opened.close()
    assert {each.source for each in estimates.values()} == {"measured"}


def test_a_profile_of_another_board_is_refused(devices: Devices, tmp_path: Path) -> None:
    profile = profile_steps(devices.bundle, (1,), 1)
    other = msgspec.structs.replace(profile, board=msgspec.structs.replace(profile.board, cores=64_000))
    write_step_profile(tmp_path / "other.json", other)
    devices.start_worker("w0", "--profile", str(tmp_path / "other.json"))
    assert devices.processes["w0"].wait(PATIENCE_S) == 2
    assert "was measured on another kind of board" in devices.log("w0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--export", "pi9"], "no class of boards 'pi9' is known; did you mean 'pi4'? known are: pi4"),
        (["--remove", "pi9"], "no class of boards 'pi9' is known"),
        (["--import", "none.json"], "cannot read none.json"),
        (["--profiles", "none.sqlite"], "there is no profile database none.sqlite"),
        (["--export", "pi4", "--remove", "pi4"], "not allowed with"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_mistakes_of_an_operator_are_one_line(
    layers: Path, bin_folder: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    write_step_profile(tmp_path / "p.json", profile_steps(layers, (1,), 1, board_class="pi4"))
    command: list[str | Path] = [bin_folder / "hyps-manager", "profiles"]
    subprocess.run([*command, "--import", "p.json", "-q"], cwd=tmp_path, check=True)
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_classes_are_imported_exported_and_removed(layers: Path, bin_folder: Path, tmp_path: Path) -> None:
    profile = profile_steps(layers, (1,), 1, board_class="pi4")
    write_step_profile(tmp_path / "p.json", profile)

    def run(*options: str) -> str:
        command: list[str | Path] = [bin_folder / "hyps-manager", "profiles", *options]
        return str(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)

    assert "pi4" in run("--import", "p.json")
    run("--export", "pi4", "-o", "again.json")
    run("--import", "again.json")
    assert run("--remove", "pi4").startswith("no board was profiled yet")
