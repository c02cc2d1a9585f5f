"""Test ``hyps-manager plan`` with what ``hyps-run profile`` measured: whose times it takes, and what it says of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.planning.fleets import load_fleet
from hyps.runtime.cluster.planning.step_times import profiled_times, rated_times
from hyps.runtime.profiling.profile_database import ProfileDatabase
from hyps.runtime.profiling.profile_file import Quartiles, StepProfileFile, read_step_profile, write_step_profile
from hyps.runtime.profiling.step_content import step_contents
from hyps.runtime.profiling.step_measurement import StepMeasurement, measurements_of
from tests.repository import ROOT

EXAMPLE = ROOT / "docs" / "guide" / "boards.toml"
ONE_BOARD = """links.lan = { bandwidth = "94 Mbit/s", latency = "0 ms" }
[[boards]]
name = "a"
class = "pi4"
memory = "1 GB"
storage = "1 GB/s"
speed = "1 GMAC/s"
idle = "1 W"
busy = "2 W"
link = "lan"
"""


@pytest.fixture(scope="module")
def profile(layers: Path, bin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> StepProfileFile:
    """What a real ``hyps-run profile`` measured of the 14 steps; the class is called pi4."""
    path = tmp_path_factory.mktemp("profile") / "pi4.json"
    options = ["--threads", "1", "--repeats", "5", "--board-class", "pi4", "-q"]
    subprocess.run([bin_folder / "hyps-run", "profile", layers, "-o", path, *options], check=True)
    return read_step_profile(path)


@pytest.fixture
def plan(layers: Path, bin_folder: Path, tmp_path: Path) -> Any:
    """Run the command in ``tmp_path`` with the example's boards."""

    def run(*options: str | Path, boards: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
        command = [bin_folder / "hyps-manager", "plan", layers, "--boards", boards, "--max", "1", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def without(profile: StepProfileFile, steps: Sequence[int]) -> StepProfileFile:
    """Return the profile without some steps."""
    kept = tuple(step for number, step in enumerate(profile.steps) if number not in steps)
    return msgspec.structs.replace(profile, steps=kept)


def of_class(profile: StepProfileFile, name: str) -> StepProfileFile:
    """Return the profile as one of another class."""
    return msgspec.structs.replace(profile, board_class=name)


def test_a_plan_takes_what_was_measured(plan: Any, profile: StepProfileFile, tmp_path: Path) -> None:
    boards = tmp_path / "boards.toml"
    boards.write_text(ONE_BOARD)
    write_step_profile(tmp_path / "pi4.json", profile)
    done = plan("--profile", "pi4.json", "--json", boards=boards)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["times"] == [
        {
            "class": "a",
            "profiled_as": "pi4",
            "measured": 14,
            "by_regression": 0,
            "regression_error": None,
            "by_speed": 0,
        }
    ]
    (used,) = document["placements"][0]["used"]
    assert used["compute_s"] == pytest.approx(sum(step.times[0].run_s.median for step in profile.steps))


def test_what_was_not_measured_is_predicted_and_other_classes_take_their_speed(
    plan: Any, profile: StepProfileFile, tmp_path: Path
) -> None:
    write_step_profile(tmp_path / "pi4.json", without(profile, (2, 5)))
    write_step_profile(tmp_path / "few.json", of_class(without(profile, range(4, 14)), "far"))
    options = ("--profile", "pi4.json", "--profile", "few.json")
    times = {each["class"]: each for each in json.loads(plan(*options, "--json").stdout)["times"]}
    counts = {name: (each["measured"], each["by_regression"], each["by_speed"]) for name, each in times.items()}
    assert counts == {"pi3": (0, 0, 14), "pi4": (12, 2, 0), "far": (4, 0, 10)}
    assert times["pi4"]["regression_error"] > 0
    assert times["far"]["regression_error"] is None
    lines = plan(*options).stdout.splitlines()
    error = f"{times['pi4']['regression_error']:.0%}"
    assert [line.split() for line in lines[-3:]] == [
        ["pi3", "0", "0", "-", "14"],
        ["pi4", "12", "2", error, "0"],
        ["far", "4", "0", "-", "10"],
    ]
    assert "times of steps: by the speed of each class" in plan().stdout


def test_files_count_before_the_database(plan: Any, profile: StepProfileFile, tmp_path: Path) -> None:
    slow = msgspec.structs.replace(
        profile,
        steps=tuple(
            msgspec.structs.replace(step, times=(msgspec.structs.replace(step.times[0], run_s=_seconds(9.0)),))
            for step in profile.steps
        ),
    )
    with closing(ProfileDatabase(tmp_path / "known.sqlite")) as database:
        database.import_file(slow)
    part = without(profile, (3,))
    write_step_profile(tmp_path / "part.json", part)
    boards = tmp_path / "boards.toml"
    boards.write_text(ONE_BOARD)
    known = ("--profiles", "known.sqlite", "--json")
    of_part = sum(step.times[0].run_s.median for step in part.steps)
    for options, seconds in ((known, 14 * 9.0), ((*known, "--profile", "part.json"), 9.0 + of_part)):
        document = json.loads(plan(*options, boards=boards).stdout)
        assert [each["measured"] for each in document["times"]] == [14]
        (used,) = document["placements"][0]["used"]
        assert used["compute_s"] == pytest.approx(seconds)


def _seconds(seconds: float) -> Quartiles:
    return Quartiles(lower=seconds, median=seconds, upper=seconds)


def test_times_are_those_of_a_workers_number_of_threads(layers: Path, profile: StepProfileFile) -> None:
    """The most threads up to the plan's; a number above it only where there is no other."""
    manifest = read_manifest(layers)
    planned_threads = manifest.target.threads
    measured = [replace(each, board_class="pi4", threads=planned_threads) for each in measurements_of(profile)]
    others = [replace(each, threads=threads) for each in measured for threads in (planned_threads + 1, 0)]
    shorter = [_run_in(each, 1e-9) for each in others]
    contents, planned = step_contents(layers, manifest), load_fleet(EXAMPLE)
    found = {each.board_class: each for each in profiled_times(manifest, planned, contents, [*shorter, *measured])}
    assert found["pi4"].seconds == tuple(each.run_s.median for each in measured)
    assert found["pi3"] == rated_times(manifest, planned)[0]


def _run_in(measured: StepMeasurement, seconds: float) -> StepMeasurement:
    return replace(measured, run_s=_seconds(seconds))


def test_a_file_of_no_class_is_a_note_beside_others_and_a_mistake_alone(
    plan: Any, profile: StepProfileFile, tmp_path: Path
) -> None:
    write_step_profile(tmp_path / "pi4.json", profile)
    write_step_profile(tmp_path / "pi9.json", of_class(profile, "Raspberry Pi 9"))
    both = plan("--profile", "pi4.json", "--profile", "pi9.json", "--json")
    assert both.returncode == 0
    assert " ".join(both.stderr.split()) == (
        "hyps-manager: pi9.json is not used: the boards file has no class 'Raspberry Pi 9'"
    )
    alone = plan("--profile", "pi9.json")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr == (
        "hyps-manager: the boards file has no boards of a class that was profiled: Raspberry Pi 9; "
        'write class = "Raspberry Pi 9" in the entry of such boards\n'
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profile", "none.json"), "cannot read none.json"),
        (("--profile", EXAMPLE), "is no step profile of version 1"),
        (("--profiles", "none.sqlite"), "there is no profile database none.sqlite"),
        (("--profiles", "empty.sqlite"), "nothing was profiled yet; run 'hyps-run profile'"),
        (("--profiles", EXAMPLE), "file is not a database"),
    ],
)
def test_what_is_no_profile_is_one_line(plan: Any, tmp_path: Path, options: Sequence[str | Path], said: str) -> None:
    ProfileDatabase(tmp_path / "empty.sqlite").close()
    done = plan(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
