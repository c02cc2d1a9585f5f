"""The state at an exit, the actions that are possible there, and the state as numbers for a learnt policy.

Seifeddine (section 3.3): the state at an exit is the vector of its predictions, the time and the energy so far, and the
bandwidth now. The time that is left until the deadline and the round trip of the link are part of it as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

#: The order of the probabilities in `state_vector`: highest first, or by class.
ProbabilityOrder = Literal["sorted", "raw"]
#: The largest numbers of `state_vector`: what is larger, or has no bound, counts as so much.
MOST_SECONDS: Final = 60.0
MOST_JOULES: Final = 1_000.0
MOST_BYTES_PER_S: Final = 1e10
#: The numbers in `state_vector` after the exit and the probabilities.
_OTHERS = 5


class ExitAction(IntEnum):
    """An action at an exit; its number is its place among the values of a learnt policy."""

    STAY = 0
    EXIT = 1
    OFFLOAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitState:
    """The state of an inference at exit number ``exit``, from 0 on.

    ``probabilities`` are those of the classes, float32 [C]. ``seconds`` and ``joules`` are what the inference took so far.
    ``bandwidth_bytes_per_s`` and ``round_trip_s`` are of the link to the next tier, 0 where there is none. ``seconds_left``
    are those until the deadline: infinite without one, negative after it.
    """

    probabilities: NDArray[np.float32]
    exit: int
    seconds: float
    joules: float = 0.0
    bandwidth_bytes_per_s: float = 0.0
    round_trip_s: float = 0.0
    seconds_left: float = math.inf

    @property
    def confidence(self) -> float:
        """The highest probability."""
        return float(self.probabilities.max())


def class_probabilities(scores: NDArray[Any], *, are_probabilities: bool) -> NDArray[np.float32]:
    """Return the probabilities of classes, float32 [C], from their scores, [C] or [1, C].

    ``are_probabilities``: the network itself ends in a softmax. Else one is applied, in float64. Scores of which one is not
    a number make probabilities that are none.
    """
    flat: NDArray[np.float64] = scores.reshape(-1).astype(np.float64)
    if not are_probabilities:
        with np.errstate(invalid="ignore"):
            flat = np.exp(flat - flat.max())
            flat /= flat.sum()
    return flat.astype(np.float32)


def state_width(classes: int, exits: int) -> int:
    """Return the length of `state_vector` for a network with so many classes, and so many exits, the last included."""
    return exits + classes + _OTHERS


def state_vector(state: ExitState, exits: int, order: ProbabilityOrder) -> NDArray[np.float32]:
    """Return the state as float32 [1, n], with n by `state_width`, for a policy with an input of that shape.

    In this order: 1 at the number of the exit and 0 at the ``exits`` - 1 others; the probabilities, highest first or by
    class; seconds so far; joules so far; log10(1 + bandwidth in bytes a second), as bandwidths differ by orders of
    magnitude; seconds of the round trip; seconds left. All are finite: 60 seconds stand for all that is longer, and for no
    deadline; -60 for all that is later.
    """
    vector = np.zeros((1, state_width(len(state.probabilities), exits)), np.float32)
    row = vector[0]
    row[state.exit] = 1
    row[exits:-_OTHERS] = np.sort(state.probabilities)[::-1] if order == "sorted" else state.probabilities
    row[-_OTHERS:] = (
        min(state.seconds, MOST_SECONDS),
        min(state.joules, MOST_JOULES),
        math.log10(1 + min(state.bandwidth_bytes_per_s, MOST_BYTES_PER_S)),
        min(state.round_trip_s, MOST_SECONDS),
        max(-MOST_SECONDS, min(state.seconds_left, MOST_SECONDS)),
    )
    return vector
