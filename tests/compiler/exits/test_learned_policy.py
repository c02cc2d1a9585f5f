"""A learned policy comes near the optimum, and the file that the device reads decides as the learned network does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="torch, of the extra 'policy', trains the network")
pytest.importorskip("stable_baselines3", reason="stable-baselines3, of the extra 'policy', is the agent")

from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.exits.dqn import LearnedValues, learn_values
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.policy_files import network_file, recorded_exits
from hyps.compiler.exits.rewards import Reward, draw_episodes, follow
from hyps.runtime.exits.network_policy import open_network_policy
from hyps.runtime.exits.policies import NeverExit
from tests.compiler.exits.recordings import drawn

VARIED = Conditions(joules=4.0, seconds=0.1, bandwidth=(10.0, 1e8), no_link=0.2, radio_watts=2.0)


@pytest.fixture(scope="module")
def learned() -> LearnedValues:
    return learn_values(draw_episodes(drawn(2000, 0), None, Reward(beta=4.0), 0), "sorted", count=4000, seed=0)


def test_it_comes_near_the_optimum_on_other_inputs(learned: LearnedValues) -> None:
    recorded, reward = drawn(4000, 1), Reward(beta=4.0)
    episodes = draw_episodes(recorded, None, reward, 0)
    exits = recorded_exits(recorded)
    policy = open_network_policy(Path("policy.onnx"), network_file(exits, learned), exits)
    value = follow(policy, episodes, None).values.mean()
    optimum = follow(best_table(draw_episodes(drawn(2000, 0), None, reward, 0)), episodes, None).values.mean()
    never = follow(NeverExit(), episodes, None).values.mean()
    assert never < value
    assert value >= optimum - 0.1 * (optimum - never)


def test_onnxruntime_and_torch_decide_alike(learned: LearnedValues) -> None:
    states = np.random.default_rng(0).uniform(0, 1, (10_000, learned.layers[0][0].shape[1])).astype(np.float32)
    model = learned.to_onnx()
    session = ort.InferenceSession(model.SerializeToString())
    found = np.concatenate([session.run(None, {"state": state[None]})[0] for state in states])
    with torch.no_grad():
        wanted = learned.torch_module()(torch.from_numpy(states)).numpy()
    np.testing.assert_array_equal(found.argmax(axis=1), wanted.argmax(axis=1))
    assert len(np.unique(found.argmax(axis=1))) > 1


def test_what_never_varied_is_not_read(learned: LearnedValues) -> None:
    """Nothing was known of joules, times and links; so a device that measures them must get the same decisions."""
    weight = learned.layers[0][0]
    assert not weight[:, -5:].any()
    assert weight[:, :-5].any()


def test_it_offloads_by_the_bandwidth() -> None:
    recorded, reward = drawn(1000, 2), Reward(beta=4.0)
    episodes = draw_episodes(recorded, VARIED, reward, 0)
    values = learn_values(episodes, "sorted", count=4000, seed=0)
    exits = recorded_exits(recorded)
    policy = open_network_policy(Path("policy.onnx"), network_file(exits, values), exits)
    found = follow(policy, episodes, VARIED)
    bandwidth = np.array([each.bandwidth for each in episodes.conditions])
    assert found.offloaded[bandwidth > 1e7].mean() > 0.5
    assert found.offloaded[(bandwidth > 0) & (bandwidth < 300)].mean() < 0.1


def test_the_file_is_small(learned: LearnedValues) -> None:
    assert len(network_file(recorded_exits(drawn(2, 0)), learned)) < 100_000
