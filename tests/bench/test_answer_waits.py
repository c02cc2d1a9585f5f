"""Test the waits for the next answer from moments of a stream in which nothing was killed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.answer_waits import waits_s


def test_waits_are_those_from_any_moment() -> None:
    """A second between two answers: half a second in the median, and never more than one."""
    found = waits_s([0.0, 1.0, 2.0, 3.0], [])
    assert found[0] == pytest.approx(0, abs=0.01)
    assert found[50] == pytest.approx(0.5, abs=0.01)
    assert found[-1] == pytest.approx(1, abs=0.01)


def test_long_gaps_count_by_their_length() -> None:
    """A random moment is nine times as likely in a gap that is nine times as long."""
    assert waits_s([0.0, 1.0, 10.0], [])[50] == pytest.approx(5 - 0.5, abs=0.6)


def test_busy_moments_do_not_count() -> None:
    assert waits_s([0.0, 1.0, 10.0, 11.0], [(1.0, 10.0)])[-1] <= 1
    assert waits_s([0.0, 1.0], [(-1.0, 2.0)]) == waits_s([0.0], []) == ()


def test_the_quantiles_ascend() -> None:
    found = waits_s(np.random.default_rng(0).uniform(0, 20, 50).tolist(), [])
    assert [*found] == sorted(found)
    assert len(found) == 101
