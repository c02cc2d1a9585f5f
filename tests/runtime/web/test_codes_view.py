"""Test what the page's status and the metrics say of codes; `tests.runtime.cluster.test_codes` makes the figures."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest

from hyps.runtime.web.boards import missing_steps
from hyps.runtime.web.metrics import registry
from hyps.runtime.web.schemas import CodesView, ShareView, StatusView


def share(**changes: Any) -> ShareView:
    fields = {
        "number": 2, "start": 2, "stop": 3, "first": "02-fc-shard1of2", "last": "02-fc-shard1of2", "homes": {}, "waiting": 0,
        "dealt": False, "replaced": True, "service_s": {},
    }  # fmt: skip
    return ShareView.model_validate(fields | changes)


def test_metrics_count_what_was_decoded_and_whose_answers_were_late_or_wrong() -> None:
    codes = CodesView(
        decoded={"fc6": 12},
        late={"w1": 3},
        wrong={"w2": 1},
        withdrawn={"w1": 4},
        spared={"w1": 2},
        coverage=["any 1 board may be lost"],
    )
    view = StatusView(
        model="m", bundle="b", state="serving", problem=None, hub=True, jobs=0, answered=9, answered_per_s=0.0, workers=[],
        shares=[share()], codes=codes,
    )  # fmt: skip
    lines = generate_latest(registry(view)).decode().splitlines()
    assert 'hyps_decoded_total{code="fc6"} 12.0' in lines
    assert 'hyps_worker_late_shards_total{worker="w1"} 3.0' in lines
    assert 'hyps_worker_wrong_shards_total{worker="w2"} 1.0' in lines
    assert 'hyps_worker_withdrawn_shards_total{worker="w1"} 4.0' in lines
    assert 'hyps_worker_spared_shards_total{worker="w1"} 2.0' in lines


@pytest.mark.parametrize(("replaced", "problem"), [(True, None), (False, "no board holds step 2 (02-fc-shard1of2)")])
def test_a_step_that_is_decoded_is_no_problem(replaced: bool, problem: str | None) -> None:
    found = missing_steps([share(replaced=replaced)])
    assert found == problem or (found is not None and problem is not None and found.startswith(problem))
