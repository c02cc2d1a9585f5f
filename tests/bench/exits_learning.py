"""Learn by DQN what the report validates, beta between exits, and what it leaves open, weights of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hyps.compiler.exits.dqn import learn_values
from hyps.compiler.exits.fit import training_episodes
from hyps.compiler.exits.policy_files import network_file, recorded_exits
from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import Reward, beta_between, draw_episodes, follow
from hyps.runtime.exits.network_policy import open_network_policy
from tests.bench.exits_policies import followed
from tests.bench.exits_results import BetaResults, BetaRun, WeightedRun

#: Seeds of DQN for each beta, and with weights.
BETA_SEEDS, WEIGHT_SEEDS = range(3), range(3)
#: The betas of the optimum's curve.
_CURVE = np.geomspace(1, 1e4, 41)
#: How much more errors on one class cost.
_WEIGHT = 10.0


def beta_results(fit: RecordedExits, test: RecordedExits, say: Callable[[str], None]) -> BetaResults:
    """Return the mean exits of policies for beta by equation 4.1, and those of the optimum for any beta.

    DQN is trained where beta is made of the error rate and positive.
    """
    runs = []
    for loss, losses in (("cross entropy", fit.losses), ("error rate", 1 - fit.correct.mean(axis=0))):
        for place in range(1, len(fit.names)):
            beta = beta_between(losses, place)
            ends = {name: _mean_exit(name, fit, test, beta, 0) for name in ("thresholds", "optimum")}
            seeds = []
            for seed in BETA_SEEDS if loss == "error rate" and beta > 0 else ():
                say(f"{loss}, exits {place} and {place + 1}, seed {seed}")
                seeds.append(_mean_exit("dqn", fit, test, beta, seed))
            if seeds:
                ends["dqn"] = float(np.mean(seeds))
            runs.append(BetaRun(place=place, loss=loss, beta=beta, mean_exit=ends, dqn_seeds=tuple(seeds)))
    curve = []
    for beta in _CURVE.tolist():
        found = followed("optimum", fit, test, None, beta, 0)
        curve.append((beta, float(found.exits.mean()) + 1, float(found.correct.mean())))
    return BetaResults(runs=tuple(runs), curve=tuple(curve))


def _mean_exit(name: str, fit: RecordedExits, test: RecordedExits, beta: float, seed: int) -> float:
    return float(followed(name, fit, test, None, beta, seed).exits.mean()) + 1


def weighted_runs(fit: RecordedExits, test: RecordedExits, say: Callable[[str], None]) -> tuple[WeightedRun, ...]:
    """Return the errors of DQN without weights and with one on a class; both see the probabilities by class.

    Beta is that between exits 1 and 2 by the error rate. The class is the one whose errors fall most from exit 2 to the last
    one on the images that policies are fitted to.
    """
    beta = beta_between(1 - fit.correct.mean(axis=0), 1)
    correct = [fit.correct[fit.labels == each].mean(axis=0) for each in range(fit.classes)]
    chosen = int(np.argmax([each[-1] - each[1] for each in correct]))
    exits, is_weighted = recorded_exits(fit), test.labels == chosen
    runs = []
    for weight in (1.0, _WEIGHT):
        weights = np.ones(fit.classes)
        weights[chosen] = weight
        episodes = training_episodes(fit, None, Reward(beta=beta, class_weights=weights), 0)
        rates = []
        for seed in WEIGHT_SEEDS:
            say(f"weight {weight:g}, seed {seed}")
            content = network_file(exits, learn_values(episodes, "raw", seed=seed))
            policy = open_network_policy(Path("policy.onnx"), content, exits)
            found = follow(policy, draw_episodes(test, None, Reward(beta=beta), 1000), None)
            wrong = ~found.correct
            rates.append((wrong[is_weighted].mean(), wrong[~is_weighted].mean(), found.exits.mean() + 1))
        weighted, others, mean_exit = np.mean(rates, axis=0).tolist()
        runs.append(
            WeightedRun(
                weight=weight,
                weighted_class=chosen,
                class_errors=weighted,
                other_errors=others,
                mean_exit=mean_exit,
                seeds=tuple(float(rate[0]) for rate in rates),
            )
        )
    return tuple(runs)
