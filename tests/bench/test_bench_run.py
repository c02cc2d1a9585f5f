"""Running ``make bench``: parts are kept as they are done; a small race for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hyps.models.catalogue import build
from tests.bench import throttled as groups
from tests.bench.contender import Contender
from tests.bench.contender import race as run_race
from tests.bench.known_results import part, predicted, race
from tests.bench.latency import bundled
from tests.bench.machine import commit, machine
from tests.bench.main import PARTS, main
from tests.bench.networks import PICTURES, compared
from tests.bench.place import Place
from tests.bench.readings import Reading, Results, Skipped, dump, load, save
from tests.bench.summary import STOCK
from tests.repository import ROOT

Measure = Callable[[Place], object]


def test_results_are_written_and_read(tmp_path: Path) -> None:
    results = Results(latency=part((race(),)), prediction=part(None, skipped="for [reasons] {of}\nits own"))
    save(results, tmp_path / "new" / "results.json")
    assert load(tmp_path / "new" / "results.json", Results) == results
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]
    assert load(tmp_path / "none.json", Results) == Results()
    assert json.loads(dump(results))["prediction"]["skipped"] == "for [reasons] {of}\nits own"


def test_a_reading_is_a_line() -> None:
    lines = dump(Results(latency=part((race(),)))).splitlines()
    readings = [line for line in lines if '"seconds"' in line and '"storage_bytes"' in line]
    assert len(readings) == sum(1 + len(each.race.runs) + 3 * len(each.cold) for each in race().contenders)


def test_a_part_replaces_what_was_known_of_it_alone(tmp_path: Path) -> None:
    before = Results(latency=part((race(),)), dependencies=part(None, skipped="long ago", commit="old"))
    save(before, tmp_path / "benchmarks.json")
    main(["--only", "dependencies", "--docs", str(tmp_path)])
    after = load(tmp_path / "benchmarks.json", Results)
    assert after.latency == before.latency
    assert after.dependencies
    assert after.dependencies.result
    assert not after.dependencies.skipped
    assert after.dependencies.commit == commit()
    assert after.dependencies.machine == machine(tmp_path)
    sizes = [row.resident_bytes for row in after.dependencies.result]
    assert sizes == sorted(sizes)
    assert sizes[0] > 5e6
    text = (tmp_path / "benchmarks.md").read_text("utf-8")
    assert "Not of one state" in text
    assert {path.name for path in (tmp_path / "benchmarks").iterdir()} == {"memory.svg", "latency.svg", "tradeoff.svg"}


def test_what_cannot_run_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(place: Place) -> object:
        with groups.throttled(place.folder, read_bytes_per_s=1, memory_bytes=1):
            raise AssertionError

    monkeypatch.setattr(groups, "_GROUPS", tmp_path / "none")
    monkeypatch.setitem(PARTS, "storage", forbidden)
    main(["--only", "storage", "--docs", str(tmp_path)])
    storage = load(tmp_path / "benchmarks.json", Results).storage
    assert storage
    assert storage.result is None
    assert storage.skipped
    assert "control groups" in storage.skipped
    assert "is skipped: no slow storage here" in capsys.readouterr().out


def test_rendering_measures_nothing(tmp_path: Path) -> None:
    results = Results(prediction=part((predicted("net", 0.1),)))
    save(results, tmp_path / "benchmarks.json")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "memory.svg").write_text("of results that are no more")
    main(["--render", "--docs", str(tmp_path)])
    assert load(tmp_path / "benchmarks.json", Results) == results
    assert [path.name for path in (tmp_path / "benchmarks").iterdir()] == ["prediction.svg"]


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """Planning takes a minute; libraries are done by then."""
    command = [sys.executable, "-m", "tests.bench.main", "--only", "dependencies,planning", "--docs", str(tmp_path)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "benchmarks.json").exists() or not any(scratch.glob("hyps-bench-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    results = load(tmp_path / "benchmarks.json", Results)
    assert results.dependencies
    assert results.planning is None
    assert "Not measured yet: `make bench ONLY=planning`" in (tmp_path / "benchmarks.md").read_text("utf-8")
    assert not list(scratch.glob("hyps-bench-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "latency,speed"], "no part speed: there are latency, networks, storage"),
        (["--rounds", "1"], "at least 2"),
    ],
)
def test_wrong_options(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text('{"latency": 1}')
    with pytest.raises(SystemExit, match="is not of this benchmark"):
        main(["--only", "dependencies", "--docs", str(tmp_path)])
    assert (tmp_path / "benchmarks.json").read_text() == '{"latency": 1}'
    assert not (tmp_path / "benchmarks.md").exists()


def test_a_small_race(tmp_path: Path) -> None:
    """The classifier, mapped and in a bundle."""
    model, values = tmp_path / "small.onnx", tmp_path / "image.npy"
    build("cifar10_vgg", model, external_data=True)
    np.save(values, np.zeros((1, 3, 32, 32), np.float32))
    whole = Contender(label="whole", mode="mapped", path=model)
    bundle = bundled(model, tmp_path / "bundles", 72, 1)
    said: list[str] = []
    one, two = run_race([whole, bundle], values, threads=1, rounds=3, cold=1, say=said.append)
    assert (one.label, two.label, two.budget_bytes) == ("whole", "bundle, 72 MB", 72_000_000)
    assert said[-1] == "threads 1: round 3 of 3"
    for each in (one, two):
        assert each.resident.samples > 3
        assert len(each.cold) == 1
        assert len(each.cold[0].runs) == 2
        assert len(each.race.runs) == 3
        for reading in (each.race.opened, *each.race.runs, each.cold[0].opened, *each.cold[0].runs):
            assert reading.seconds > 0
            assert reading.peak_bytes > 30e6
            assert reading.asked_bytes > 0
        peak = each.race.peak_bytes
        # less than the peak: pages of code that only imports use are given back
        assert 0.6 * peak < each.resident.anonymous_bytes + each.resident.file_bytes < 1.2 * peak
        assert min(each.resident.anonymous_bytes, each.resident.file_bytes) > 5e6
        if not machine(tmp_path).storage.startswith(("tmpfs", "overlay", "unknown")):
            weights = model.with_suffix(".onnx.data").stat().st_size if each is one else 0
            assert _read(each.cold[0].opened, each.cold[0].runs[0]) > weights * 0.9
    assert two.race.peak_bytes <= 72_000_000


@pytest.mark.regression
def test_a_small_comparison(tmp_path: Path) -> None:
    """The classifier, where it fits, against stock onnxruntime, whose options it runs with: there is nothing to tune."""
    found = compared(Place(folder=tmp_path, rounds=2), "cifar10_vgg", 1, budgets_mb=(10, 80))
    assert [(each.label, each.budget_bytes) for each in found.contenders] == [
        (STOCK, None),
        (PICTURES, 80_000_000),
        ("bundle", 80_000_000),
    ]
    for each in found.contenders:
        assert len(each.starts) == 3
        assert len(each.race.runs) == 2
        for process in (*each.starts, each.race):
            assert process.opened.seconds > 0
            assert process.peak_bytes <= (each.budget_bytes or 1 << 40)
    assert not [*tmp_path.iterdir()]


def _read(*readings: Reading) -> int:
    return sum(reading.storage_bytes for reading in readings)


def test_a_contender_that_dies_is_no_reading(tmp_path: Path) -> None:
    absent = Contender(label="absent", mode="mapped", path=tmp_path / "none.onnx")
    np.save(tmp_path / "image.npy", np.zeros(1))
    with pytest.raises(RuntimeError, match="a contender died"):
        run_race([absent], tmp_path / "image.npy", threads=1, rounds=2, cold=1, say=lambda text: None)


def test_no_groups_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_GROUPS", tmp_path / "none")
    with (
        pytest.raises(Skipped, match="cgroup v1"),
        groups.throttled(tmp_path, read_bytes_per_s=1, memory_bytes=1),
    ):
        raise AssertionError
