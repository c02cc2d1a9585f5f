"""Value the end of an inference: accuracy against energy (Seifeddine, equations 3.2 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.conditions import Conditions, Episode, draw_episode, exit_state
from hyps.compiler.exits.recorded import RecordedExits
from hyps.runtime.exits.policies import ExitPolicy
from hyps.runtime.exits.state import ExitAction

ValueArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """-``alpha`` x joules + ``beta`` x correct (equation 3.2); ``class_weights`` multiply ``beta`` by the true class."""

    alpha: float = 1.0
    beta: float
    class_weights: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """One inference of each recorded input: its conditions, and the value of ending it at each exit, [N, E].

    ``offload`` are the values of sending the rest to the next tier at each exit. They are those of staying to the end
    where there is no link, as a lost link falls back to staying. ``cost`` is what of these values energy takes, [N, E].
    """

    recorded: RecordedExits
    conditions: tuple[Episode, ...]
    is_costed: bool
    exit: ValueArray
    offload: ValueArray
    cost: ValueArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a policy, per input.

    ``exits`` are the exits that answer; ``left`` the last that the device computes, where an offloaded inference leaves it.
    ``correct``: right, and in time.
    """

    exits: NDArray[np.int64]
    left: NDArray[np.int64]
    offloaded: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    joules: ValueArray
    seconds: ValueArray
    values: ValueArray


def beta_between(losses: NDArray[np.float64], place: int) -> float:
    """Return beta between exits ``place`` and ``place + 1``, from 1: 1 / (loss_i - loss_i+1) (equation 4.1)."""
    if not 1 <= place < len(losses):
        raise OptionError(f"--beta-between takes an exit from 1 to {len(losses) - 1}")
    difference = float(losses[place - 1] - losses[place])
    if difference == 0:
        raise OptionError(f"exits {place} and {place + 1} have the same loss, and so no beta between; give --beta")
    return 1 / difference


def draw_episodes(recorded: RecordedExits, conditions: Conditions | None, reward: Reward, seed: int) -> Episodes:
    """Return one inference of each input under conditions drawn from ``seed``, with the value of each end."""
    random = np.random.default_rng(seed)
    drawn = tuple(draw_episode(recorded, conditions, random) for _ in recorded.labels)
    weights = np.ones(recorded.classes) if reward.class_weights is None else reward.class_weights
    gains = reward.beta * weights[recorded.labels]
    joules, seconds = np.array([each.joules for each in drawn]), np.array([each.seconds for each in drawn])
    deadline = np.array([[each.deadline] for each in drawn])
    values = gains[:, None] * (recorded.correct & (seconds <= deadline)) - reward.alpha * joules
    sent_joules, sent_seconds, has_link = _offloaded(recorded, conditions, drawn, joules, seconds)
    arrives = recorded.correct[:, -1:] & (sent_seconds <= deadline)
    offload = np.where(has_link, gains[:, None] * arrives - reward.alpha * sent_joules, values[:, -1:])
    return Episodes(
        recorded=recorded,
        conditions=drawn,
        is_costed=conditions is not None,
        exit=values,
        offload=offload,
        cost=reward.alpha * joules,
    )


def follow(policy: ExitPolicy, episodes: Episodes, conditions: Conditions | None) -> Outcome:
    """Return what becomes of every episode under ``policy``, which decides at every exit but the last."""
    recorded = episodes.recorded
    last = len(recorded.names) - 1
    ends = np.full(len(recorded.labels), last)
    offloaded = np.zeros(len(ends), np.bool_)
    for index, episode in enumerate(episodes.conditions):
        for place in range(last):
            action = policy.decide(exit_state(recorded, index, place, episode, is_costed=episodes.is_costed))
            if action == ExitAction.OFFLOAD and episode.bandwidth == 0:
                break
            if action != ExitAction.STAY:
                ends[index], offloaded[index] = place, action == ExitAction.OFFLOAD
                break
    return outcome(episodes, conditions, ends, offloaded)


def outcome(
    episodes: Episodes, conditions: Conditions | None, ends: NDArray[np.int64], offloaded: NDArray[np.bool_]
) -> Outcome:
    """Return the results of ending each episode at exit ``ends``, or of offloading it there."""
    rows = np.arange(len(ends))
    recorded, drawn = episodes.recorded, episodes.conditions
    joules, seconds = np.array([each.joules for each in drawn]), np.array([each.seconds for each in drawn])
    sent_joules, sent_seconds, _ = _offloaded(recorded, conditions, drawn, joules, seconds)
    answered = np.where(offloaded, len(recorded.names) - 1, ends)
    took = np.where(offloaded, sent_seconds[rows, ends], seconds[rows, ends])
    in_time = took <= np.array([each.deadline for each in drawn])
    return Outcome(
        exits=answered,
        left=ends,
        offloaded=offloaded,
        correct=recorded.correct[rows, answered] & in_time,
        joules=np.where(offloaded, sent_joules[rows, ends], joules[rows, ends]),
        seconds=took,
        values=np.where(offloaded, episodes.offload[rows, ends], episodes.exit[rows, ends]),
    )


def _offloaded(
    recorded: RecordedExits,
    conditions: Conditions | None,
    drawn: tuple[Episode, ...],
    joules: ValueArray,
    seconds: ValueArray,
) -> tuple[ValueArray, ValueArray, NDArray[np.bool_]]:
    """Return the joules and seconds of inferences that are offloaded at each exit, [N, E], and which can be, [N, 1]."""
    bandwidth = np.array([[each.bandwidth] for each in drawn])
    if conditions is None or not bandwidth.any():
        return joules, seconds, np.zeros_like(bandwidth, np.bool_)
    crossing = np.array(recorded.live_bytes) / np.where(bandwidth > 0, bandwidth, np.inf)
    crossing += np.array([[each.round_trip] for each in drawn])
    remote = (seconds[:, -1:] - seconds) / conditions.tier_speed
    spent = joules + conditions.radio_watts * crossing + conditions.idle_watts * remote
    return spent, seconds + crossing + remote, bandwidth > 0
