"""The benchmark of the order of plans counts pairs as it says."""

from __future__ import annotations

import pytest

from tests.bench.plan_order import Agreement, Drawn, agreement


def drawn(estimated_s: float, *clock_s: float) -> Drawn:
    return Drawn(network="net", label="plan", estimated_s=estimated_s, clock_s=clock_s, cpu_s=clock_s)


@pytest.mark.parametrize(
    ("plans", "found", "tau"),
    [
        ([drawn(1, 1, 1), drawn(2, 2, 2), drawn(3, 3, 3)], Agreement(agreeing=3, opposed=0, left_out=0), 1.0),
        ([drawn(3, 1, 1), drawn(2, 2, 2), drawn(1, 3, 3)], Agreement(agreeing=0, opposed=3, left_out=0), -1.0),
        ([drawn(1, 1, 1), drawn(3, 2, 2), drawn(2, 3, 3)], Agreement(agreeing=2, opposed=1, left_out=0), 1 / 3),
        ([drawn(1, 1, 3), drawn(2, 2, 2)], Agreement(agreeing=0, opposed=0, left_out=1), 0.0),
        ([drawn(1, 1, 1), drawn(1, 2, 2)], Agreement(alike=1), 0.0),
    ],
    ids=["same", "reversed", "one pair differs", "within the noise", "estimated alike"],
)
def test_pairs(plans: list[Drawn], found: Agreement, tau: float) -> None:
    assert agreement(plans, lambda plan: plan.clock_s) == found
    assert found.tau == pytest.approx(tau)
