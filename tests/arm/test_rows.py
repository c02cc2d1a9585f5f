"""Test the judgement of outcomes on made-up ones: wrong outcomes are found, right ones pass."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.arm.board import Outcome
from tests.arm.networks import IMAGES, Values
from tests.arm.rows import Row, judge

BUNDLE = Row(memory_mib=256, mode="bundle", budget_mb=66)
BATCH = replace(BUNDLE, images=2)
WHOLE = Row(memory_mib=1024, mode="inside", expected="killed")
PREDICTED = 65_000_000

EXPECTED: dict[str, Values] = {name: np.roll(np.linspace(0, 0.1, 20, dtype=np.float32), n) for n, name in enumerate(IMAGES)}


def _saved(**outputs: Values) -> bytes:
    file = io.BytesIO()
    np.savez(file, **outputs)  # type: ignore[arg-type]  # numpy's stub takes the second keyword for allow_pickle
    return file.getvalue()


RAN = Outcome(
    exit=0,
    out_of_memory=False,
    seconds=12.0,
    peak_bytes=57_000_000,
    anonymous_bytes=28_000_000,
    file_bytes=27_000_000,
    major_faults=900,
    read_bytes=47_000_000,
    memory_bytes=238_000_000,
    available_bytes=205_000_000,
    stdout=json.dumps({"input": "/data/images/image0.npy", "latency_s": 2.5, "top": []}) + "\n",
    stderr="step  load  run  read  resident\n"
    "00-a  5.0 ms  11.0 ms  8.5 MB  38.4 MB\n01-b  3.0 ms  2.0 ms  0.5 MB  46.0 MB\n",
    saved=_saved(prob=EXPECTED["image0"]),
)
KILLED = replace(RAN, exit=-9, out_of_memory=True, stdout="", stderr="", saved=b"")


def _batch(*scores: float) -> Outcome:
    best = [
        {"index": int(EXPECTED[name].argmax()), "label": None, "score": s} for s, name in zip(scores, IMAGES, strict=False)
    ]
    lines = [{"input": f"/data/images/{IMAGES[n]}.npy", "top": [top], "latency_s": 1.0} for n, top in enumerate(best)]
    return replace(RAN, stdout="\n".join(map(json.dumps, lines)), stderr="", saved=b"")


def test_good_outcome_has_no_complaint() -> None:
    record = judge(BUNDLE, RAN, PREDICTED, EXPECTED)
    assert (record.wrong, record.result, record.deviation) == ([], "ran", 0.0)
    assert (record.run_s, record.run_read_bytes) == (2.5, 9_000_000)


def test_kill_that_was_expected_has_no_complaint() -> None:
    record = judge(WHOLE, KILLED, None, EXPECTED)
    assert (record.wrong, record.result, record.deviation) == ([], "killed for memory", None)


def test_batch_is_judged_by_its_best_scores() -> None:
    assert judge(BATCH, _batch(0.1, 0.1), PREDICTED, EXPECTED).wrong == []


@pytest.mark.parametrize(
    ("row", "outcome", "complaint"),
    [
        pytest.param(BUNDLE, replace(RAN, peak_bytes=65_100_000), "not ascending", id="peak above the prediction"),
        pytest.param(BUNDLE, replace(RAN, saved=_saved(prob=EXPECTED["image1"])), "deviates", id="another image's output"),
        pytest.param(BUNDLE, replace(RAN, saved=_saved(prob=EXPECTED["image0"] * np.nan)), "deviates", id="no numbers"),
        pytest.param(BUNDLE, KILLED, "expected: runs; came: killed", id="killed"),
        pytest.param(BUNDLE, replace(KILLED, out_of_memory=False), "came: fails", id="killed, but not for memory"),
        pytest.param(BUNDLE, replace(RAN, exit=2), "came: fails", id="refused"),
        pytest.param(WHOLE, replace(RAN, stdout='{"run_s": 1, "run_read_bytes": 1}'), "came: runs", id="not killed"),
        pytest.param(BATCH, _batch(0.1, 0.09), "deviates", id="one of a batch is wrong"),
        pytest.param(BATCH, _batch(0.1), "deviates", id="one of a batch is missing"),
    ],
)
def test_wrong_outcome_is_found(row: Row, outcome: Outcome, complaint: str) -> None:
    [wrong] = judge(row, outcome, PREDICTED if row.mode == "bundle" else None, EXPECTED).wrong
    assert complaint in wrong
