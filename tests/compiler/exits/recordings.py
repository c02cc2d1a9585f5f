"""Recorded exits drawn at random, in which deeper exits know more and confidences are honest."""

from __future__ import annotations

import numpy as np

from hyps.compiler.exits.recorded import RecordedExits

NAMES = ("early", "middle", "late", "own")


def drawn(count: int, seed: int, classes: int = 5) -> RecordedExits:
    """Each input has a difficulty; the class of an exit is drawn from the probabilities that it states."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    difficulty = random.uniform(0, 4, size=(count, 1, 1))
    depth = np.arange(1, len(NAMES) + 1).reshape(1, -1, 1)
    scores = random.normal(0, 1, (count, len(NAMES), classes)) / depth
    scores[np.arange(count), :, labels] += (2.2 * depth[:, :, 0] - difficulty[:, :, 0]) / 2
    powers = np.exp(3 * (scores - scores.max(axis=2, keepdims=True)))
    return RecordedExits(
        probabilities=(powers / powers.sum(axis=2, keepdims=True)).astype(np.float32),
        labels=labels,
        names=NAMES,
        multiply_adds=(100, 250, 500, 1000),
        live_bytes=(4000, 2000, 1000, 0),
        model="0" * 64,
    )
