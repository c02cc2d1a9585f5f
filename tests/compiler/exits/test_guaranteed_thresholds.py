"""The promise of a guaranteed threshold is kept: over many drawings it is broken as seldom as it says."""

from __future__ import annotations

import numpy as np
import pytest

from hyps.compiler.exits.guarantee import betting_p_value, guaranteed_threshold, lowest_promised
from hyps.compiler.exits.thresholds import NEVER, SHARED, lowest_within, shared_losses
from tests.compiler.exits.recordings import drawn

LOSS, DRAWINGS = 0.02, 500


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_p_values_below_a_level_are_as_rare_as_the_level_where_the_loss_is_too_large(share: float) -> None:
    """At the boundary, a mean loss of exactly 2 %, with few or many losses that cancel out."""
    random = np.random.default_rng(0)
    chances = [share / 2 - 0.01, 1 - share, share / 2 + 0.01]
    p_values = [betting_p_value(random.choice([-1, 0, 1], 500, p=chances), 0.02, 0.95) for _ in range(2000)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_the_test_has_power() -> None:
    assert betting_p_value(np.zeros(1000, np.int64), 0.02, 0.95) < 0.001
    assert betting_p_value(np.zeros(50, np.int64), 0.02, 0.95) > 0.05
    assert betting_p_value(np.ones(1000, np.int64), 0.02, 0.95) == 1


def test_the_promise_is_broken_as_seldom_as_it_says_and_without_it_often() -> None:
    losses = shared_losses(drawn(4000, 11))
    truth = dict(zip(SHARED, losses.mean(axis=0).tolist(), strict=True))
    random = np.random.default_rng(1)
    broken, naive, early = 0, 0, 0
    for _ in range(DRAWINGS):
        sample = losses[random.integers(4000, size=600)]
        chosen = lowest_promised(sample, LOSS, 0.9)
        broken += truth[chosen] > LOSS
        naive += truth[lowest_within(sample, LOSS)] > LOSS
        early += chosen != NEVER
    assert broken <= 0.1 * DRAWINGS
    assert naive > 0.15 * DRAWINGS  # so the check can fail
    assert early > 0.9 * DRAWINGS


def test_too_few_inputs_give_no_promise() -> None:
    assert guaranteed_threshold(drawn(30, 12), 0.01, 0.95) == NEVER
