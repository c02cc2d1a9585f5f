"""Test the waits for the next answer from moments of a stream in which nothing was killed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.answer_waits import waits_s
from tests.bench.codes_faults import may_be_lost


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


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("any 1 board may be lost", True),
        ("any 1 board may be lost\nw0 is gone: sub-bundle 2 must move\ncodes and copies replace it", False),
        ("w0 is gone: sub-bundle 2 must move\nnot every board may be lost", False),
        ("not every board may be lost\nany 1 board may be lost", True),
        ("any 1 board may be lost\nhyps-manager: sub-bundle 2 on w0: placed -> loading", False),
        ("sub-bundle 2 on w0: placed -> loading\nany 1 board may be lost\nsub-bundle 2 on w0: loading -> loaded", True),
        ("", False),
    ],
    ids=["said", "lost since", "said not", "again", "loading", "loaded", "nothing"],
)  # fmt: skip
def test_a_fault_is_second_until_any_board_may_be_lost(log: str, expected: bool) -> None:
    assert may_be_lost(log) is expected
