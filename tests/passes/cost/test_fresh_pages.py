"""The bytes of weights that are read into fresh pages are those for which the runtime has no other pages."""

from __future__ import annotations

import pytest

from hyps.passes.cost.fresh_pages import fresh_weight_bytes
from hyps.runtime.bundle.residency import Residency, StepResidency

MB = 1 << 20


def residency(pinned: list[int], ahead: list[int], peaks: list[int], *, steady: bool = False) -> Residency:
    """Return what stays in memory, all in MB."""
    steps = tuple(
        StepResidency(pinned_bytes=pin * MB, ahead_bytes=more * MB, session_stays_open=True, peak_bytes=peak * MB)
        for pin, more, peak in zip(pinned, ahead, peaks, strict=True)
    )
    return Residency(steps=steps, steady=steady, huge_pages=steady)


@pytest.mark.parametrize(
    ("weights", "found", "fresh"),
    [
        ([8, 8, 8, 8], residency([0] * 4, [8] * 4, [90] * 4, steady=True), [0] * 4),
        ([8, 8, 8, 8], residency([0] * 4, [8] * 4, [90] * 4), [0] * 4),
        ([8, 4, 8, 4], residency([0] * 4, [4, 8, 4, 8], [90] * 4), [0] * 4),
        ([8, 4, 6, 4], residency([0] * 4, [4, 6, 4, 8], [90] * 4), [2, 0, 0, 0]),
        ([8, 8, 8], residency([0] * 3, [0] * 3, [90] * 3), [0] * 3),
        ([8, 2, 8], residency([0] * 3, [0] * 3, [90] * 3), [0, 0, 6]),
        ([8, 2, 8], residency([0] * 3, [0] * 3, [90, 70, 90]), [0] * 3),
        ([8, 8], residency([8, 5], [0, 0], [90] * 2), [0, 3]),
        ([0, 0], residency([0, 0], [0, 0], [90] * 2), [0, 0]),
        ([8], residency([0], [0], [90]), [0]),
    ],
    ids=[
        "a steady arena",
        "two places of equal size",
        "two places of two sizes",
        "a smaller step gives back",
        "one place",
        "one place, a smaller step gives back",
        "one place, room during the smaller step",
        "pinned in part",
        "nothing to read",
        "one step",
    ],
)
def test_fresh_bytes(weights: list[int], found: Residency, fresh: list[int]) -> None:
    assert fresh_weight_bytes([each * MB for each in weights], found) == [each * MB for each in fresh]
