"""Time the decisions of policies as the device makes them, and compare onnxruntime's with torch's."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from hyps.compiler.exits.conditions import exit_state
from hyps.compiler.exits.dqn import learn_values
from hyps.compiler.exits.fit import training_episodes
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.policy_files import network_file, recorded_exits, table_file, threshold_file
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import Reward, beta_between, draw_episodes
from hyps.compiler.exits.thresholds import best_thresholds
from hyps.runtime.exits.network_policy import open_network_policy
from hyps.runtime.exits.policies import ExitPolicy
from hyps.runtime.exits.policy_file import parse_policy
from hyps.runtime.exits.state import state_vector
from tests.bench.exits_results import DecisionRun

STATES = 100_000
_TIMED = 5_000


def decision_runs(fit: RecordedExits, test: RecordedExits) -> tuple[DecisionRun, ...]:
    """Return the time of a decision by thresholds, by a table and by a learned network, and the sizes of their files."""
    exits, beta = recorded_exits(fit), beta_between(fit.losses, 2)
    episodes = training_episodes(fit, None, Reward(beta=beta), 0)
    values = learn_values(episodes, "sorted")
    files = {
        "thresholds": threshold_file(exits, best_thresholds(episodes)),
        "optimum": table_file(exits, best_table(episodes)),
    }
    runs = [
        _timed(name, parse_policy(Path("policy.json"), content, exits), content, test) for name, content in files.items()
    ]
    learned = network_file(exits, values)
    timed = _timed("dqn", open_network_policy(Path("policy.onnx"), learned, exits), learned, test)
    states = _states(test)
    session = ort.InferenceSession(learned, providers=["CPUExecutionProvider"])
    found = np.array([session.run(None, {"state": state[None]})[0][0].argmax() for state in states])
    with torch.no_grad():
        wanted = values.torch_module()(torch.from_numpy(states)).argmax(1).numpy()
    different = int((found != wanted).sum())
    return (
        *runs,
        DecisionRun(
            policy="dqn",
            median_s=timed.median_s,
            slow_s=timed.slow_s,
            file_bytes=timed.file_bytes,
            states=len(states),
            differ=different,
        ),
    )


def _timed(name: str, policy: ExitPolicy, content: bytes, test: RecordedExits) -> DecisionRun:
    random = np.random.default_rng(0)
    (episode, *_) = draw_episodes(test, None, Reward(beta=1.0), 0).conditions
    places = random.integers(len(test.names) - 1, size=_TIMED)
    indexes = random.integers(len(test.labels), size=_TIMED)
    spent = []
    for index, place in zip(indexes.tolist(), places.tolist(), strict=True):
        state = exit_state(test, index, place, episode, is_costed=False)
        began = time.perf_counter()
        policy.decide(state)
        spent.append(time.perf_counter() - began)
    return DecisionRun(
        policy=name,
        median_s=float(np.median(spent)),
        slow_s=float(np.quantile(spent, 0.99)),
        file_bytes=len(content),
    )


def _states(test: RecordedExits) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return states at random exits of random images, with their probabilities a little changed so that all differ."""
    random = np.random.default_rng(1)
    (episode, *_) = draw_episodes(test, None, Reward(beta=1.0), 0).conditions
    exits = len(test.names)
    rows = []
    for _ in range(STATES):
        index, place = int(random.integers(len(test.labels))), int(random.integers(exits - 1))
        row = state_vector(exit_state(test, index, place, episode, is_costed=False), exits, "sorted")[0]
        row[exits:-5] *= random.uniform(0.9, 1.1, len(row) - exits - 5)
        rows.append(row)
    return np.array(rows, np.float32)
