"""Numbers of bytes as messages show them: a larger one is never shown as the smaller one, or as an equal one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.units import megabytes, megabytes_down, megabytes_up


@pytest.mark.parametrize(
    ("nbytes", "shown", "up", "down"),
    [
        (64_200_000, "64.2 MB", "64.2 MB", "64.2 MB"),
        (64_200_001, "64.2 MB", "64.3 MB", "64.2 MB"),
        (64_299_999, "64.3 MB", "64.3 MB", "64.2 MB"),
        (1_234_567_890, "1,234.6 MB", "1,234.6 MB", "1,234.5 MB"),
        (999_500, "1.000 MB", "1.0 MB", "0.999 MB"),
        (65_536, "0.066 MB", "0.066 MB", "0.065 MB"),
        (0, "0.000 MB", "0.000 MB", "0.000 MB"),
    ],
)
def test_a_need_is_rounded_up_and_a_budget_down(nbytes: int, shown: str, up: str, down: str) -> None:
    assert (megabytes(nbytes), megabytes_up(nbytes), megabytes_down(nbytes)) == (shown, up, down)


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_what_is_more_is_shown_as_more(less: int, difference: int) -> None:
    def number(text: str) -> float:
        return float(text.removesuffix(" MB").replace(",", ""))

    assert number(megabytes_up(less + difference)) > number(megabytes_down(less))
