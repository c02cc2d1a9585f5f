"""Fixed thresholds are the best on a grid, and the optimum by backward induction is no worse than they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.rewards import Reward, beta_between, draw_episodes, follow
from hyps.compiler.exits.thresholds import NEVER, accuracy_losses, best_thresholds, first_exits, shared_threshold
from hyps.runtime.exits.policies import NeverExit, ThresholdPolicy
from tests.compiler.exits.recordings import drawn

FIXED = Conditions(joules=2.0, seconds=0.1, bandwidth=(1e5, 1e5), radio_watts=2.0, round_trip=0.01)


def test_an_input_leaves_at_the_first_exit_that_reaches_its_threshold() -> None:
    confidence = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.1], [0.3, 0.2, 0.1]])
    assert first_exits(confidence, np.array([0.9, 0.5])).tolist() == [0, 1, 2]
    assert first_exits(confidence, np.array([NEVER, NEVER])).tolist() == [2, 2, 2]


@pytest.mark.parametrize("beta", [1.5, 4.0, 12.0])
def test_fitted_thresholds_reach_the_best_of_a_grid(beta: float) -> None:
    recorded = drawn(400, 1)
    episodes = draw_episodes(recorded, None, Reward(beta=beta), 0)
    rows = np.arange(400)

    def value(thresholds: tuple[float, ...]) -> float:
        return float(episodes.exit[rows, first_exits(recorded.confidence, np.array(thresholds))].mean())

    grid = [0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, NEVER]
    best = max(map(value, itertools.product(grid, repeat=3)))
    assert value(best_thresholds(episodes)) >= best - 0.01 * abs(best)


def test_the_run_time_policy_leaves_where_the_fit_counted() -> None:
    recorded = drawn(300, 2)
    episodes = draw_episodes(recorded, None, Reward(beta=4.0), 0)
    thresholds = best_thresholds(episodes)
    found = follow(ThresholdPolicy(thresholds), episodes, None)
    leaves = first_exits(recorded.confidence.astype(np.float64), np.array(thresholds))
    np.testing.assert_array_equal(found.exits, leaves)
    np.testing.assert_allclose(found.values, 4.0 * found.correct - (leaves + 1))


@pytest.mark.parametrize("beta", [1.5, 4.0, 12.0])
def test_the_optimum_is_no_worse_than_thresholds_on_other_inputs(beta: float) -> None:
    reward = Reward(beta=beta)
    episodes, others = (draw_episodes(drawn(4000, seed), None, reward, 0) for seed in (3, 4))
    optimum = follow(best_table(episodes), others, None).values.mean()
    thresholds = follow(ThresholdPolicy(best_thresholds(episodes)), others, None).values.mean()
    assert optimum >= thresholds - 0.01 * abs(thresholds)


def test_the_optimum_offloads_where_the_link_is_cheap_and_not_where_it_is_dear() -> None:
    recorded, reward = drawn(2000, 5), Reward(beta=4.0)
    shares = []
    for bandwidth in (1e8, 1e3):
        conditions = Conditions(joules=4.0, seconds=0.1, bandwidth=(bandwidth, bandwidth), radio_watts=2.0)
        episodes = draw_episodes(recorded, conditions, reward, 0)
        found = follow(best_table(episodes), episodes, conditions)
        shares.append(float(found.offloaded.mean()))
        assert found.values.mean() >= follow(NeverExit(), episodes, conditions).values.mean()
    assert shares[0] > 0.3
    assert shares[1] == 0


def test_values_are_gain_less_energy_and_a_late_answer_gains_nothing() -> None:
    recorded, reward = drawn(200, 6), Reward(alpha=0.5, beta=3.0)
    conditions = Conditions(joules=2.0, seconds=0.1, deadline=(0.03, 0.03))
    episodes = draw_episodes(recorded, conditions, reward, 0)
    shares = np.array(recorded.multiply_adds) / 1000
    in_time = 0.1 * shares <= 0.03  # the first two exits
    assert in_time.tolist() == [True, True, False, False]
    np.testing.assert_allclose(episodes.exit, 3.0 * (recorded.correct & in_time) - 0.5 * 2.0 * shares)
    np.testing.assert_array_equal(episodes.offload, np.repeat(episodes.exit[:, -1:], 4, axis=1))  # there is no link


def test_offloading_costs_what_crosses_and_what_the_tier_takes() -> None:
    recorded = drawn(50, 7)
    episodes = draw_episodes(recorded, FIXED, Reward(beta=1.0), 0)
    crossing = np.array(recorded.live_bytes) / 1e5 + 0.01
    energy = 2.0 * np.array(recorded.multiply_adds) / 1000 + 2.0 * crossing
    np.testing.assert_allclose(episodes.offload, recorded.correct[:, -1:] - energy)


def test_class_weights_move_the_effort_to_the_classes_that_count() -> None:
    recorded = drawn(4000, 8)
    weights = np.array([5.0, 0.1, 0.1, 0.1, 0.1])
    heavy = recorded.labels == 0
    accuracies = []
    for each in (None, weights):
        episodes = draw_episodes(recorded, None, Reward(beta=4.0, class_weights=each), 0)
        assert np.isclose(episodes.exit[heavy].max(), 4.0 * (1 if each is None else 5) - 1)
        accuracies.append(episodes.exit[~heavy].max())
    assert accuracies[1] < accuracies[0]


def test_beta_is_the_reciprocal_of_the_difference_of_losses() -> None:
    losses = np.array([1.072, 0.8281, 0.8131])  # table 3.1
    assert beta_between(losses, 1) == pytest.approx(1 / 0.2439)
    assert beta_between(losses, 2) == pytest.approx(1 / 0.015)
    with pytest.raises(OptionError, match="from 1 to 2"):
        beta_between(losses, 3)
    with pytest.raises(OptionError, match="the same loss"):
        beta_between(np.array([1.0, 1.0]), 1)


def test_a_shared_threshold_keeps_to_the_loss_on_what_it_was_fitted_to() -> None:
    recorded = drawn(1000, 9)
    (threshold, *others) = shared_threshold(recorded, 0.01)
    assert set(others) == {threshold}
    assert accuracy_losses(recorded, threshold).mean() <= 0.01 < accuracy_losses(recorded, threshold - 0.05).mean()
