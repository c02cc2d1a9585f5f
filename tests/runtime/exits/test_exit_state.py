"""The state at an exit as numbers, and the probabilities of its classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hyps.runtime.exits.state import ExitState, class_probabilities, state_vector, state_width


def test_layout_of_the_state() -> None:
    state = ExitState(
        probabilities=np.array([0.25, 0.5, 0.125, 0.125], np.float32),
        exit=1,
        seconds=0.5,
        joules=2.0,
        bandwidth_bytes_per_s=999_999.0,
        round_trip_s=0.25,
        seconds_left=0.75,
    )
    raw, ordered = state_vector(state, 3, "raw"), state_vector(state, 3, "sorted")
    assert raw.dtype == np.float32
    assert raw.shape == ordered.shape == (1, state_width(4, 3)) == (1, 12)
    others = [0.5, 2.0, 6.0, 0.25, 0.75]
    assert raw[0].tolist() == [0, 1, 0, 0.25, 0.5, 0.125, 0.125, *others]
    assert ordered[0].tolist() == [0, 1, 0, 0.5, 0.25, 0.125, 0.125, *others]
    assert state.confidence == 0.5


@pytest.mark.parametrize(("left", "shown"), [(float("inf"), 60.0), (1e9, 60.0), (-1e9, -60.0), (-0.5, -0.5)])
def test_a_state_is_finite(left: float, shown: float) -> None:
    state = ExitState(
        probabilities=np.full(2, 0.5, np.float32),
        exit=0,
        seconds=1e9,
        joules=1e9,
        bandwidth_bytes_per_s=1e18,
        round_trip_s=1e9,
        seconds_left=left,
    )
    assert state_vector(state, 2, "raw")[0, -5:].tolist() == [60.0, 1_000.0, 10.0, 60.0, shown]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_probabilities_of_scores(kind: type[np.floating[Any]]) -> None:
    scores = np.array([[1.0, 2.0, 3.0]], kind)
    found = class_probabilities(scores, are_probabilities=False)
    expected = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert found.dtype == np.float32
    assert found.shape == (3,)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert class_probabilities(scores, are_probabilities=True).tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(class_probabilities(np.array([np.inf, 1.0]), are_probabilities=False)).any()
