"""Offer recorded exits as a gymnasium environment, in which an agent learns when to stay, exit or offload.

Seifeddine, sections 3.3.2 and 3.4: an episode is one inference, a step is one exit. This module needs gymnasium.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hyps.compiler.exits.conditions import exit_state
from hyps.compiler.exits.rewards import Episodes
from hyps.runtime.exits.state import ExitAction, ProbabilityOrder, state_vector


class ExitEnvironment(gymnasium.Env[NDArray[np.float32], np.int64]):  # type: ignore[misc]
    """Inferences drawn at random from ``episodes``; actions are those of `ExitAction`.

    Observations are `state_vector`, less ``mean``, divided by ``scale``. A number that never varies is observed as 0:
    nothing can be learned of it, and a policy must not depend on it. The rewards of an episode sum up to its value, divided
    by ``unit``: staying costs the energy of the step to the next exit, the end gains what the answer is worth.
    """

    def __init__(self, episodes: Episodes, order: ProbabilityOrder) -> None:
        exits = len(episodes.recorded.names)
        states = [
            [
                state_vector(exit_state(episodes.recorded, index, place, each, is_costed=episodes.is_costed), exits, order)[
                    0
                ]
                for place in range(exits)
            ]
            for index, each in enumerate(episodes.conditions)
        ]
        raw = np.array(states, np.float64)
        decided = raw[:, :-1].reshape(-1, raw.shape[2])
        deviation = decided.std(axis=0)
        self.mean, self.scale = decided.mean(axis=0), np.where(deviation > 1e-9, deviation, np.inf)
        self.unit = max(float(np.ptp(episodes.exit)), 1e-9)
        self._states = ((raw - self.mean) / self.scale).astype(np.float32)
        self._exit, self._offload = episodes.exit / self.unit, episodes.offload / self.unit
        self._cost = episodes.cost / self.unit
        self._index = self._place = 0
        self.observation_space = spaces.Box(-np.inf, np.inf, raw.shape[2:], np.float32)
        self.action_space = spaces.Discrete(len(ExitAction))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin the inference of an input drawn at random; return the state at its first exit."""
        super().reset(seed=seed)
        self._index, self._place = int(self.np_random.integers(len(self._states))), 0
        return self._state(0), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take an action; return the next state, the reward and whether the episode has ended."""
        costs, place, last = self._cost[self._index], self._place, self._exit.shape[1] - 1
        spent = float(costs[place] - costs[0])
        if action == ExitAction.OFFLOAD:
            return self._state(place), float(self._offload[self._index, place]) + spent, True, False, {}
        if action == ExitAction.EXIT or place + 1 == last:
            end = place if action == ExitAction.EXIT else last
            return self._state(end), float(self._exit[self._index, end]) + spent, True, False, {}
        self._place += 1
        return self._state(self._place), float(costs[place] - costs[place + 1]), False, False, {}

    def _state(self, place: int) -> NDArray[np.float32]:
        """Return a state as an array that the caller may keep."""
        return np.asarray(self._states[self._index, place].copy())
