"""The runtime's own memory is measured on a real ``hyps-run``, and nothing is left of the measurement."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from hyps.runtime.calibration import baseline as module
from hyps.runtime.calibration.baseline import Baseline, baseline, quick_baseline, write_bundle
from hyps.runtime.errors import DeviceError
from hyps.runtime.execution.loading import load_executor

MB = 1_000_000


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is not Linux")
def test_it_is_what_a_runtime_and_its_libraries_take(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RUNS", 1)
    monkeypatch.setitem(os.environ, "HYPS_LEAN", "")  # however these tests were started
    found = baseline(1, 10**10)
    assert 35 * MB < found.process_bytes <= found.process_images_bytes < 90 * MB
    assert abs(quick_baseline(1, 10**10) - found.process_images_bytes) < 0.03 * found.process_images_bytes
    assert not list(scratch.iterdir())


def test_pictures_never_cost_less(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"tensor.npy": 60 * MB, "photograph.jpg": 59 * MB}
    monkeypatch.setattr(module, "_peak_bytes", lambda bundle, source, runs: peaks[source.name])
    assert baseline(1, 10**10) == Baseline(process_bytes=60 * MB, process_images_bytes=60 * MB)


def test_the_largest_of_some_runs_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
from pathlib import Path
log = Path("log")
peaks = [5, 9, 7]
log.write_text((log.read_text() if log.exists() else "") + ".")
print('{"peak_rss_bytes": %d}' % peaks[len(log.read_text()) - 1])
"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_COMMAND", (sys.executable, "-c", script))
    monkeypatch.setattr(module, "_ENOUGH_S", 60.0)
    assert module._peak_bytes(tmp_path, tmp_path, 3) == 9
    assert (tmp_path / "log").read_text() == "..."


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import sys; print('hyps-run: no\\n room', file=sys.stderr); sys.exit(2)",
            "hyps-run fails on the smallest bundle: hyps-run: no room",
        ),
        ("import os; os.kill(os.getpid(), 9)", "hyps-run on the smallest bundle was killed, as when memory runs out"),
        (
            "import time; time.sleep(60)",
            "hyps-run on the smallest bundle took over 1 s; stop other programs",
        ),
    ],
    ids=["it fails", "it is killed", "it hangs"],
)
def test_a_runtime_that_fails(scratch: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    monkeypatch.setattr(module, "_COMMAND", (sys.executable, "-c", script))
    monkeypatch.setattr(module, "_LIMIT_S", 1.0)
    for measure in (baseline, quick_baseline):
        with pytest.raises(DeviceError) as caught:
            measure(1, 10**10)
        assert str(caught.value) == message
    assert not list(scratch.iterdir())


def test_the_smallest_bundle_runs(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", 2, 10**10)
    executor = load_executor(tmp_path / "bundle", threads=2)
    scores = executor.run({"image": np.full((1, 3, 224, 224), 0.5, np.float32)})["scores"]
    np.testing.assert_allclose(scores, [[0.5, 0.5]], rtol=1e-6)
