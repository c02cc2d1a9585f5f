"""Policy files in JSON: what they decide, and that no other bytes get further than one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyps.runtime.exits.policies import NeverExit, TablePolicy, ThresholdPolicy
from hyps.runtime.exits.policy_file import parse_policy, read_policy
from hyps.runtime.exits.policy_header import MOST_POLICY_BYTES, PolicyError, model_exits, policy_header
from hyps.runtime.exits.state import ExitAction, ExitState

EXITS = model_exits("0" * 64, ("e1", "e2", "scores"), 4)
THRESHOLDS: dict[str, Any] = {**policy_header(EXITS), "kind": "thresholds", "thresholds": [0.9, 0.5]}
TABLES: dict[str, Any] = {
    **policy_header(EXITS),
    "kind": "table",
    "bandwidth_edges": [1e6],
    "tables": [
        {"edges": [0.6], "actions": [["stay", "exit"], ["offload", "exit"]]},
        {"edges": [], "actions": [["exit"], ["stay"]]},
    ],
}


def state(number: int, confidence: float, bandwidth: float = 0.0) -> ExitState:
    probabilities = np.array([confidence, *[(1 - confidence) / 3] * 3], np.float32)
    return ExitState(probabilities=probabilities, exit=number, seconds=0.0, bandwidth_bytes_per_s=bandwidth)


def test_policies_by_name() -> None:
    assert read_policy("never", EXITS) == NeverExit()
    assert read_policy("threshold:0.75", EXITS) == ThresholdPolicy((0.75, 0.75))
    assert NeverExit().decide(state(0, 1.0)) is ExitAction.STAY


def test_thresholds_decide(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(THRESHOLDS | {"guarantee": {"loss": 0.02, "confidence": 0.95, "samples": 10, "method": "x"}}))
    policy = read_policy(str(path), EXITS)
    found = [policy.decide(state(*each)) for each in ((0, 0.8), (0, 0.95), (1, 0.25), (1, 0.5))]
    assert found == [ExitAction.STAY, ExitAction.EXIT, ExitAction.STAY, ExitAction.EXIT]


def test_tables_decide() -> None:
    policy = parse_policy(Path("p.json"), json.dumps(TABLES).encode(), EXITS)
    assert isinstance(policy, TablePolicy)
    slow, fast = 1e3, 1e6
    assert policy.decide(state(0, 0.5, slow)) is ExitAction.STAY
    assert policy.decide(state(0, 0.5, fast)) is ExitAction.OFFLOAD
    assert policy.decide(state(0, 0.7, slow)) is ExitAction.EXIT
    assert policy.decide(state(1, 0.7, slow)) is ExitAction.EXIT
    assert policy.decide(state(1, 0.7, fast)) is ExitAction.STAY


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        (THRESHOLDS | {"format": "other"}, "is no exit policy"),
        (THRESHOLDS | {"version": 2}, "has version 2, this hyps-run reads 1"),
        (THRESHOLDS | {"bundle": "1" * 64}, "is for the exits of another model"),
        (THRESHOLDS | {"exits": ["e1", "scores"]}, "is for other exits than e1, e2, scores"),
        (THRESHOLDS | {"classes": 5}, "is for 5 classes, the exits have 4"),
        (THRESHOLDS | {"thresholds": [0.5]}, "decides at 1 exits, the bundle has 2 before the last"),
        (THRESHOLDS | {"thresholds": [0.5, 3]}, "Expected `float` <= 2"),
        (THRESHOLDS | {"thresholds": []}, "has not the fields of a policy of kind 'thresholds'"),
        (THRESHOLDS | {"kind": "table"}, "has not the fields of a policy of kind 'table'"),
        (THRESHOLDS | {"kind": "code"}, "Invalid enum value 'code'"),
        (THRESHOLDS | {"more": 1}, "unknown field `more`"),
        (TABLES | {"bandwidth_edges": [2.0, 1.0]}, "the edges of its bins do not ascend"),
        (TABLES | {"bandwidth_edges": []}, "a table has not one action for each bin"),
        (TABLES | {"tables": [TABLES["tables"][1]]}, "decides at 1 exits"),
        (
            TABLES | {"tables": [{"edges": [0.5], "actions": [["exit"], ["stay"]]}] * 2},
            "a table has not one action for each",
        ),
        (TABLES | {"tables": [{"edges": [], "actions": [["run"], ["stay"]]}] * 2}, "Invalid enum value 'run'"),
    ],
)
def test_wrong_documents_are_refused(document: object, refused: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Path("p.json"), json.dumps(document).encode(), EXITS)
    assert refused in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("always", "is no policy"),
        ("threshold:2", "is no probability"),
        ("threshold:nan", "is no probability"),
        ("threshold:x", "is no probability"),
        ("missing.json", "cannot read missing.json"),
        ("/", "is no policy"),
    ],
)
def test_wrong_names_are_refused(text: str, refused: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_policy(text, EXITS)
    assert refused in str(caught.value)


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(b" " * (MOST_POLICY_BYTES + 1))
    with pytest.raises(PolicyError, match="is larger than 100000 bytes"):
        read_policy(str(path), EXITS)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*THRESHOLDS, *TABLES]), inner, max_size=6),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([THRESHOLDS, TABLES]), st.dictionaries(st.sampled_from([*THRESHOLDS, *TABLES]), _JSON, max_size=3))
def test_a_changed_policy_is_whole_or_refused(document: dict[str, Any], changes: dict[str, Any]) -> None:
    try:
        policy = parse_policy(Path("p.json"), json.dumps(document | changes).encode(), EXITS)
    except PolicyError as error:
        assert "\n" not in str(error)
        return
    for number in (0, 1):
        for confidence in (0.0, 0.3, 0.6, 1.0):
            assert policy.decide(state(number, confidence, 2e6)) in ExitAction


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_policy(Path("p.json"), content, EXITS)
