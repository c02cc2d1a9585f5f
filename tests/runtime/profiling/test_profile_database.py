"""The profile database: what counts of several reporters, what is kept, and files that are none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling import profile_database as module
from hyps.runtime.profiling.profile_database import OPERATOR, ProfileDatabase, ReportedTimes
from hyps.runtime.profiling.profile_file import Quartiles, StepProfileFile, ThreadTimes
from hyps.runtime.profiling.step_content import StepContent
from hyps.runtime.profiling.step_seconds import ProfiledSeconds
from tests.runtime.profiling.test_profile_file import PI

NOTHING = Quartiles(lower=0.0, median=0.0, upper=0.0)


def reported(number: int, seconds: float, threads: int = 1, board_class: str = "pi4") -> ReportedTimes:
    content = StepContent(key=f"{number:064x}", kind="Conv", multiply_adds=100, weight_bytes=5, tensor_bytes=5, operators=1)
    times = ThreadTimes(
        threads=threads,
        runs=3,
        run_s=Quartiles(lower=seconds, median=seconds, upper=seconds),
        open_s=NOTHING,
        stored_s=None,
        read_bytes=0,
        peak_bytes=0,
    )
    return ReportedTimes(name=f"step {number}", content=content, board_class=board_class, times=times)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[ProfileDatabase]:
    opened = ProfileDatabase(tmp_path / "profiles.sqlite")
    yield opened
    opened.close()


def seconds(database: ProfileDatabase) -> list[float]:
    return [each.run_s.median for each in database.measurements()]


def test_an_imported_profile_is_exported_again(database: ProfileDatabase, layers_profile: StepProfileFile) -> None:
    assert database.import_file(layers_profile) == 14
    exported = database.export_file(layers_profile.board_class)
    assert exported.steps == layers_profile.steps
    assert exported.board == layers_profile.board
    known, again = ProfiledSeconds.of_files([layers_profile]), ProfiledSeconds(database.measurements())
    assert known.board_classes == again.board_classes


def test_the_median_of_several_workers_counts(database: ProfileDatabase) -> None:
    for worker, took in (("w1", 1.0), ("w2", 1.1), ("liar", 0.001)):
        database.add(worker, "worker", [reported(1, took)], PI)
    assert seconds(database) == [1.0]
    database.add("another liar", "worker", [reported(1, 900.0)])
    assert seconds(database) == [1.0]


def test_an_operators_file_comes_before_profiles_and_these_before_answers(database: ProfileDatabase) -> None:
    database.add("w1", "answers", [reported(1, 5.0)])
    assert seconds(database) == [5.0]
    database.add("w1", "worker", [reported(1, 4.0)])
    assert seconds(database) == [4.0]
    database.add(OPERATOR, "file", [reported(1, 3.0)])
    assert seconds(database) == [3.0]
    (known,) = database.classes()
    assert (known.steps, known.reporters, known.sources) == (1, 2, ("file", "worker", "answers"))


def test_a_reporter_replaces_only_its_own(database: ProfileDatabase) -> None:
    database.add("w1", "worker", [reported(1, 1.0), reported(1, 0.6, threads=2), reported(2, 2.0)])
    database.add("w1", "worker", [reported(1, 1.5)])
    assert sorted(seconds(database)) == [0.6, 1.5, 2.0]


def test_a_worker_that_reports_without_end_fills_no_disk(database: ProfileDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TIMES", 10)
    database.add(OPERATOR, "file", [reported(number, 1.0, board_class="own") for number in range(20)])
    for number in range(30):
        database.add("w1", "worker", [reported(number, 2.0, board_class=f"class {number}")])
    kept = {each.board_class: each.steps for each in database.classes()}
    assert kept.pop("own") == 20
    assert kept == {f"class {number}": 1 for number in range(20, 30)}


def test_it_is_there_when_it_is_opened_again(database: ProfileDatabase, tmp_path: Path) -> None:
    database.add("w1", "worker", [reported(1, 1.0)], PI)
    again = ProfileDatabase(tmp_path / "profiles.sqlite")  # also while another process has it open
    assert seconds(again) == [1.0]
    assert again.export_file("pi4").board == PI
    again.close()


def test_a_class_can_be_forgotten(database: ProfileDatabase) -> None:
    database.add("w1", "worker", [reported(1, 1.0)], PI)
    assert database.remove("pi4")
    assert not database.remove("pi4")
    assert database.classes() == []
    with pytest.raises(ProfileError, match="knows no class of boards 'pi4'"):
        database.export_file("pi4")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(ProfileError, match="not a database"):
        ProfileDatabase(tmp_path / "text")
    with pytest.raises(ProfileError, match="unable to open"):
        ProfileDatabase(tmp_path / "nowhere" / "file")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("create table t (x)")
    other.close()
    with pytest.raises(ProfileError, match="is no profile database of this version"):
        ProfileDatabase(tmp_path / "other")


@pytest.mark.parametrize("text", ["{}", "no JSON", msgspec.json.encode(reported(1, -1.0 + 1.5).times).decode()[:-9]])
def test_changed_values_are_refused(database: ProfileDatabase, tmp_path: Path, text: str) -> None:
    database.add("w1", "worker", [reported(1, 1.0)])
    other = sqlite3.connect(tmp_path / "profiles.sqlite")
    with other:
        other.execute("update times set times = ?", (text,))
    other.close()
    with pytest.raises(ProfileError, match="cannot use the profile database"):
        database.measurements()
