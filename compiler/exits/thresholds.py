"""Fit fixed thresholds: leave at exit i where the largest probability is at least threshold i."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.rewards import Episodes

#: A threshold that no confidence reaches.
NEVER = 2.0
#: Candidates of each exit's threshold, and how often all exits are gone through.
_CANDIDATES, _ROUNDS = 64, 4
#: Thresholds that all exits share, from the most cautious on.
SHARED = (NEVER, *np.round(np.arange(1.0, 0.0, -0.005), 3).tolist())


def first_exits(confidence: NDArray[np.floating], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the exit at which each input leaves; ``confidence`` [N, E], ``thresholds`` of all exits but the last."""
    reaches = np.ones(confidence.shape, np.bool_)
    reaches[:, :-1] = confidence[:, :-1] >= thresholds
    return np.asarray(reaches.argmax(axis=1))


def best_thresholds(episodes: Episodes) -> tuple[float, ...]:
    """Return the thresholds of the largest mean value, by coordinate ascent over quantiles of the confidences."""
    confidence = episodes.recorded.confidence.astype(np.float64)
    rows = np.arange(len(confidence))
    thresholds = np.full(confidence.shape[1] - 1, NEVER)
    candidates = np.concatenate(
        [np.quantile(confidence, np.linspace(0, 1, _CANDIDATES), axis=0), [[NEVER] * confidence.shape[1]]]
    )

    def value(chosen: NDArray[np.float64]) -> float:
        return float(episodes.exit[rows, first_exits(confidence, chosen)].mean())

    for _ in range(_ROUNDS):
        before = thresholds.copy()
        for place in reversed(range(len(thresholds))):
            tried = np.repeat(thresholds[None], len(candidates), axis=0)
            tried[:, place] = candidates[:, place]
            thresholds = tried[int(np.argmax([value(each) for each in tried]))]
        if (thresholds == before).all():
            break
    return tuple(map(float, thresholds))


def shared_threshold(recorded: RecordedExits, most_loss: float) -> tuple[float, ...]:
    """Return one threshold for all exits: the lowest whose accuracy is at most ``most_loss`` below the last exit's.

    That holds on the recorded inputs, and is no promise for others (`hyps.compiler.exits.guarantee`).
    """
    return (lowest_within(shared_losses(recorded), most_loss),) * (len(recorded.names) - 1)


def lowest_within(losses: NDArray[np.int64], most_loss: float) -> float:
    """Return the lowest of the `SHARED` thresholds whose mean loss is at most ``most_loss``; losses [N, thresholds]."""
    means: list[float] = losses.mean(axis=0).tolist()
    return float(min(each for each, loss in zip(SHARED, means, strict=True) if loss <= most_loss))


def shared_losses(recorded: RecordedExits) -> NDArray[np.int64]:
    """Return the `accuracy_losses` of every input for each of the `SHARED` thresholds, [N, thresholds]."""
    return np.stack([accuracy_losses(recorded, each) for each in SHARED], axis=1)


def accuracy_losses(recorded: RecordedExits, threshold: float) -> NDArray[np.int64]:
    """Return per input 1 where leaving early makes a right answer wrong, -1 where it makes a wrong one right, else 0."""
    correct = recorded.correct
    shared = np.full(correct.shape[1] - 1, threshold)
    leaves = first_exits(recorded.confidence, shared)
    return correct[:, -1].astype(np.int64) - correct[np.arange(len(correct)), leaves]
