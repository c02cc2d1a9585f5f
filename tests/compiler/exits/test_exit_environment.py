"""The environment is a valid one, and the rewards of an episode are its value."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="gymnasium, of the extra 'policy', is the environments' interface")

from gymnasium.utils.env_checker import check_env

from hyps.compiler.exits.conditions import Conditions, exit_state
from hyps.compiler.exits.environment import ExitEnvironment
from hyps.compiler.exits.rewards import Reward, draw_episodes
from hyps.runtime.exits.state import ExitAction, state_vector
from tests.compiler.exits.recordings import drawn

VARIED = Conditions(
    joules=2.0,
    seconds=0.1,
    variation=0.2,
    bandwidth=(1e4, 1e7),
    no_link=0.2,
    round_trip=0.01,
    radio_watts=1.0,
    deadline=(0.05, 0.2),
)


@pytest.mark.parametrize("conditions", [None, VARIED], ids=["constant", "varied"])
def test_gymnasium_and_stable_baselines_accept_it(conditions: Conditions | None) -> None:
    episodes = draw_episodes(drawn(40, 0), conditions, Reward(beta=4.0), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the observations have no bounds
        check_env(ExitEnvironment(episodes, "sorted"), skip_render_check=True)
        checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="of the extra 'policy'")
        checker.check_env(ExitEnvironment(episodes, "raw"))


@pytest.mark.parametrize("actions", [(0, 0, 0), (1,), (0, 1), (0, 0, 1), (2,), (0, 0, 2)])
def test_rewards_of_an_episode_are_its_value(actions: tuple[int, ...]) -> None:
    recorded = drawn(50, 1)
    episodes = draw_episodes(recorded, VARIED, Reward(alpha=0.7, beta=4.0), 0)
    environment = ExitEnvironment(episodes, "sorted")
    for seed in range(20):
        environment.reset(seed=seed)
        index = int(np.random.default_rng(np.random.PCG64(seed)).integers(50))
        total, ended = 0.0, False
        for action in actions:
            assert not ended
            _, reward, ended, truncated, _ = environment.step(np.int64(action))
            total += reward
            assert not truncated
        assert ended
        place = len(actions) - 1 if actions[-1] else 3
        values = episodes.offload if actions[-1] == ExitAction.OFFLOAD else episodes.exit
        assert total * environment.unit == pytest.approx(values[index, place])


def test_observations_are_the_states_of_the_run_time_standardised() -> None:
    recorded = drawn(50, 2)
    episodes = draw_episodes(recorded, None, Reward(beta=4.0), 0)
    environment = ExitEnvironment(episodes, "sorted")
    observation, _ = environment.reset(seed=3)
    index = int(np.random.default_rng(np.random.PCG64(3)).integers(50))
    state = state_vector(exit_state(recorded, index, 0, episodes.conditions[index], is_costed=False), 4, "sorted")[0]
    varies = np.isfinite(environment.scale)
    np.testing.assert_allclose(
        observation[varies], ((state - environment.mean) / environment.scale)[varies], rtol=1e-4, atol=1e-5
    )
    assert not observation[~varies].any()
    assert (
        ~varies
    ).sum() == 6  # seconds, joules, bandwidth, round trip, seconds left; and the last exit, where nobody decides
