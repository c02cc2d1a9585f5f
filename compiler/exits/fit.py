"""Fit a policy of any kind to recorded exits, and measure it on these and on others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.conditions import Conditions, read_conditions
from hyps.compiler.exits.guarantee import METHOD, guaranteed_threshold
from hyps.compiler.exits.labels import read_class_weights
from hyps.compiler.exits.optimum import best_table
from hyps.compiler.exits.policy_files import network_file, recorded_exits, table_file, threshold_file
from hyps.compiler.exits.recorded import RecordedExits, read_recorded
from hyps.compiler.exits.rewards import Episodes, Reward, beta_between, draw_episodes, follow
from hyps.compiler.exits.thresholds import NEVER, best_thresholds, shared_threshold
from hyps.compiler.progress import Advance
from hyps.runtime.exits.network_policy import open_network_policy
from hyps.runtime.exits.policies import ExitPolicy
from hyps.runtime.exits.policy_file import GuaranteeRecord, parse_policy

#: Inferences that each recorded input stands for where the conditions vary.
DRAWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """The kind of policy, and what it is to reach; ``most_loss`` is None where the reward decides.

    ``beta`` or ``beta_between`` is given where it does. ``class_weights`` and ``conditions`` are files.
    """

    kind: Literal["thresholds", "guaranteed", "optimal", "dqn"]
    most_loss: float | None = None
    confidence: float = 0.95
    alpha: float = 1.0
    beta: float | None = None
    beta_between: int | None = None
    class_weights: Path | None = None
    conditions: Path | None = None
    episodes: int = 10_000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFigures:
    """What a policy does with recorded inputs: its accuracy, and that of the whole network; late answers count as wrong.

    ``computed`` is the share of the multiply-adds that the device computes, ``shares`` that of the inputs that each exit
    answers, ``offloaded`` that of those sent on. ``value`` is the mean reward, None without one.
    """

    inputs: int
    accuracy: float
    whole_accuracy: float
    computed: float
    value: float | None
    shares: dict[str, float]
    offloaded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPolicy:
    """The content of a policy's file, its figures on what it was fitted to and on other inputs, and a line about it.

    ``policy`` is the policy as a device opens it, ``recorded`` and ``tested`` are the inputs, ``conditions`` those given.
    """

    content: bytes
    policy: ExitPolicy
    recorded: RecordedExits
    tested: RecordedExits | None
    conditions: Conditions | None
    fitted: PolicyFigures
    test: PolicyFigures | None
    note: str


def fit_policy(path: Path, test: Path | None, request: FitRequest, advance: Advance = lambda count: None) -> FittedPolicy:
    """Fit a policy to the recorded exits at ``path``, and measure it on those at ``test``.

    Raises `OptionError` for wrong files, and `ModuleNotFoundError` where dqn lacks a library.
    """
    recorded = read_recorded(path)
    tested = read_recorded(test) if test else None
    if tested and (tested.model, tested.names) != (recorded.model, recorded.names):
        raise OptionError(f"--test {test} has the exits of another model than {path}; record them with the same")
    conditions = read_conditions(request.conditions) if request.conditions else None
    reward = _reward(recorded, request)
    content, note = _fit(recorded, conditions, reward, request, advance)
    exits = recorded_exits(recorded)
    suffix = "policy.onnx" if request.kind == "dqn" else "policy.json"
    read = open_network_policy if request.kind == "dqn" else parse_policy
    policy = read(Path(suffix), content, exits)
    is_rewarded = request.most_loss is None
    return FittedPolicy(
        content=content,
        policy=policy,
        recorded=recorded,
        tested=tested,
        conditions=conditions,
        fitted=policy_figures(policy, recorded, conditions, reward, request.seed, is_rewarded=is_rewarded),
        test=policy_figures(policy, tested, conditions, reward, request.seed, is_rewarded=is_rewarded) if tested else None,
        note=note,
    )


def policy_figures(
    policy: ExitPolicy,
    recorded: RecordedExits,
    conditions: Conditions | None,
    reward: Reward,
    seed: int,
    *,
    is_rewarded: bool = True,
) -> PolicyFigures:
    """Return what ``policy`` does with one inference of each input, under conditions drawn from ``seed``."""
    episodes = draw_episodes(recorded, conditions, reward, seed + 1)
    found = follow(policy, episodes, conditions)
    last = len(recorded.names) - 1
    work = np.array(recorded.multiply_adds) / max(recorded.multiply_adds[-1], 1)
    return PolicyFigures(
        inputs=len(recorded.labels),
        accuracy=float(found.correct.mean()),
        whole_accuracy=float(recorded.correct[:, last].mean()),
        computed=float(work[found.left].mean()),
        value=float(found.values.mean()) if is_rewarded else None,
        shares={name: float((found.exits == place).mean()) for place, name in enumerate(recorded.names)},
        offloaded=float(found.offloaded.mean()),
    )


def training_episodes(recorded: RecordedExits, conditions: Conditions | None, reward: Reward, seed: int) -> Episodes:
    """Return episodes to fit a policy to: one of each input, or `DRAWS` where conditions vary."""
    copies = np.tile(np.arange(len(recorded.labels)), DRAWS if conditions else 1)
    return draw_episodes(recorded.take(copies), conditions, reward, seed)


def _reward(recorded: RecordedExits, request: FitRequest) -> Reward:
    beta = request.beta
    if request.beta_between is not None:
        beta = beta_between(recorded.losses, request.beta_between)
    weights = read_class_weights(request.class_weights, recorded.classes) if request.class_weights else None
    return Reward(alpha=request.alpha, beta=1.0 if beta is None else beta, class_weights=weights)


def _fit(
    recorded: RecordedExits, conditions: Conditions | None, reward: Reward, request: FitRequest, advance: Advance
) -> tuple[bytes, str]:
    """Return the content of the policy's file, and a line about it."""
    exits = recorded_exits(recorded)
    if request.kind == "guaranteed":
        most_loss = request.most_loss or 0.0
        threshold = guaranteed_threshold(recorded, most_loss, request.confidence)
        record = GuaranteeRecord(loss=most_loss, confidence=request.confidence, samples=len(recorded.labels), method=METHOD)
        promise = f"at most {most_loss:.2%} less accurate than the whole network, with {request.confidence:.0%} confidence"
        if threshold == NEVER:
            note = f"no threshold can be promised to be {promise}; the policy never exits early: record more inputs"
        else:
            note = f"threshold {threshold:.3f}: {promise}"
        return threshold_file(exits, (threshold,) * (len(exits.names) - 1), record), note
    if request.most_loss is not None:
        shared = shared_threshold(recorded, request.most_loss)
        return threshold_file(exits, shared), f"threshold {shared[0]:.3f}, without a promise for other inputs"
    episodes = training_episodes(recorded, conditions, reward, request.seed)
    note = f"reward: -{reward.alpha:g} x energy + {reward.beta:.4g} x correct"
    if request.kind == "thresholds":
        return threshold_file(exits, best_thresholds(episodes)), note
    if request.kind == "optimal":
        return table_file(exits, best_table(episodes)), note
    from hyps.compiler.exits.dqn import learn_values  # needs torch

    order: Literal["sorted", "raw"] = "sorted" if reward.class_weights is None else "raw"
    return network_file(exits, learn_values(episodes, order, request.episodes, request.seed, advance)), note
