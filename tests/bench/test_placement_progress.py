"""Test that a run of ``make bench-placement ONLY=real`` goes on where the last one ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.placement_prediction import Calibration
from tests.bench.placement_progress import RealProgress, Unfinished
from tests.bench.placement_results import RealCase

CALIBRATION = Calibration(step_s=(0.1, 0.2), slowdown=1.1, message_s=1e-4, delay_s=0.01)
CASE = RealCase(
    name="one worker",
    shares=(0.2,),
    groups="a to b",
    predicted_per_s=1.1,
    measured_per_s=1.0,
    predicted_s=0.9,
    measured_s=(0.8, 1.0, 1.2),
)


def test_what_is_done_is_kept_until_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "build" / "real.json"
    first = RealProgress("a1", 100.0, path)
    assert (first.calibration, first.cases) == (None, ())
    first.calibrated(CALIBRATION)
    first.done(CASE)
    printed = (
        "one worker: 1.100 a second predicted, 1.000 measured (+10.0%); 0.900 s alone predicted, 1.000 measured (-10.0%)"
    )
    assert capsys.readouterr().out == f"{printed}\n"
    second = RealProgress("a1", 100.0, path)
    assert (second.calibration, second.cases) == (CALIBRATION, (CASE,))
    other = RealProgress("b2", 100.0, path)
    assert (other.calibration, other.cases) == (None, ())
    second.end()
    assert not path.exists()


def test_nothing_begins_after_the_time(tmp_path: Path) -> None:
    RealProgress("a1", 100.0, tmp_path / "real.json").check_time()
    with pytest.raises(Unfinished, match="0 cases are done; the same command goes on"):
        RealProgress("a1", -1.0, tmp_path / "real.json").check_time()
