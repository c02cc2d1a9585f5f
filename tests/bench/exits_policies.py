"""Fit policies of every kind to the same recorded exits, and follow them on the same other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hyps.compiler.exits.conditions import Conditions
from hyps.compiler.exits.dqn import learn_values
from hyps.compiler.exits.fit import training_episodes
from hyps.compiler.exits.guarantee import guaranteed_threshold
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.policy_files import network_file, recorded_exits
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import Outcome, Reward, draw_episodes, follow
from hyps.compiler.exits.thresholds import best_thresholds
from hyps.runtime.exits.network_policy import open_network_policy
from hyps.runtime.exits.policies import ExitPolicy, NeverExit, ThresholdPolicy
from tests.bench.exits_results import ParetoPoint, SeedRun

POLICIES = ("thresholds", "optimum", "dqn")
SEEDS = range(5)
#: The seed of the conditions under which all policies are measured.
_TEST_SEED = 1000
#: What an inference by the whole network costs in the Pareto plot; the rest follows from multiply-adds.
WHOLE = Conditions(joules=1.0, seconds=0.1)
#: Values of a right answer in the Pareto plot, in joules.
_BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def fitted(name: str, fit: RecordedExits, conditions: Conditions | None, beta: float, seed: int) -> ExitPolicy:
    """Return the policy ``name``, fitted; the learned one as the device opens it."""
    episodes = training_episodes(fit, conditions, Reward(beta=beta), seed)
    if name == "thresholds":
        return ThresholdPolicy(best_thresholds(episodes))
    if name == "optimum":
        return best_table(episodes)
    exits = recorded_exits(fit)
    content = network_file(exits, learn_values(episodes, "sorted", seed=seed))
    return open_network_policy(Path("policy.onnx"), content, exits)


def followed(
    name: str, fit: RecordedExits, test: RecordedExits, conditions: Conditions | None, beta: float, seed: int
) -> Outcome:
    """Return what the policy ``name`` does with the test images."""
    return _measured(fitted(name, fit, conditions, beta, seed), test, conditions, beta)


def seed_run(
    fit: RecordedExits, test: RecordedExits, conditions: Conditions | None, beta: float, say: Callable[[str], None]
) -> SeedRun:
    """Return the values of all policies, of DQN for each of `SEEDS`."""
    others = {name: followed(name, fit, test, conditions, beta, 0) for name in POLICIES if name != "dqn"} | {
        "never exit": _measured(NeverExit(), test, conditions, beta)
    }
    learned = []
    for seed in SEEDS:
        say(f"seed {seed}")
        learned.append(followed("dqn", fit, test, conditions, beta, seed))
    offloaded = {name: float(each.offloaded.mean()) for name, each in others.items()}
    offloaded["dqn"] = float(np.mean([each.offloaded.mean() for each in learned]))
    return SeedRun(
        beta=beta,
        dqn=tuple(float(each.values.mean()) for each in learned),
        others={name: float(each.values.mean()) for name, each in others.items()},
        offloaded=offloaded,
    )


def pareto_points(fit: RecordedExits, test: RecordedExits, say: Callable[[str], None]) -> tuple[ParetoPoint, ...]:
    """Return what policies reach on the test images, from sparing to thorough."""
    points = [_point("never exit", "", NeverExit(), test)]
    for name in POLICIES:
        for beta in _BETAS if name != "dqn" else _BETAS[2:6:3]:
            say(f"{name}, beta {beta}")
            points.append(_point(name, f"beta {beta:g}", fitted(name, fit, WHOLE, beta, 0), test))
    exits = len(fit.names) - 1
    for most_loss in (0.005, 0.01, 0.02, 0.05, 0.1):
        threshold = guaranteed_threshold(fit, most_loss, 0.95)
        points.append(_point("guaranteed", f"at most {most_loss:.1%}", ThresholdPolicy((threshold,) * exits), test))
    return tuple(points)


def _point(name: str, setting: str, policy: ExitPolicy, test: RecordedExits) -> ParetoPoint:
    found = _measured(policy, test, WHOLE, 1.0)
    return ParetoPoint(
        policy=name,
        setting=setting,
        accuracy=float(found.correct.mean()),
        joules=float(found.joules.mean()),
        seconds=float(found.seconds.mean()),
    )


def _measured(policy: ExitPolicy, test: RecordedExits, conditions: Conditions | None, beta: float) -> Outcome:
    return follow(policy, draw_episodes(test, conditions, Reward(beta=beta), _TEST_SEED), conditions)
