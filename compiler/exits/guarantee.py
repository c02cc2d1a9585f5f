"""Fit a threshold with a promise: at most so much less accurate than the whole network, with so much confidence.

The promise is free of assumptions on the data's distribution; future inputs must be drawn like the recorded ones. Learn then
Test (Angelopoulos et al. 2021, arXiv:2110.01052), with fixed-sequence testing: thresholds are tested from the most cautious
on, and the last before the first that fails is taken. So one test at level 1 - confidence is enough for all of them.
The p-value is that of a betting martingale (Waudby-Smith and Ramdas 2024, arXiv:2010.09686). The loss is 1 where leaving
early makes a right answer wrong, -1 the other way round, and mostly 0; such a small variance makes the test sharp.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.exits.recorded import RecordedExits
from hyps.compiler.exits.thresholds import NEVER, SHARED, shared_losses

METHOD = "Learn then Test, fixed sequence, betting martingale"
#: A bet risks at most this share of what would ruin it.
_MOST_RISK = 0.75


def betting_p_value(losses: NDArray[np.int64], most_loss: float, confidence: float) -> float:
    """Return a p-value of "the mean loss is above ``most_loss``", for independent losses from -1 to 1.

    The capital of a gambler who bets against it is a supermartingale if it is true, and so exceeds 1 / p with a chance of at
    most p (Ville). Each bet depends on the losses before it alone: its size is that of the paper's equation 26.
    """
    values, mean = (losses + 1) / 2, (most_loss + 1) / 2
    before = np.arange(1, len(values) + 1)
    guesses = (0.5 + np.cumsum(values)) / (before + 1)
    variances = (0.25 + np.cumsum((values - guesses) ** 2)) / (before + 1)
    earlier = np.concatenate([[0.25], variances[:-1]])
    sizes = np.sqrt(2 * math.log(1 / (1 - confidence)) / (len(values) * earlier))
    sizes = np.minimum(sizes, _MOST_RISK / (1 - mean))
    capital = np.cumsum(np.log1p(sizes * (mean - values)))
    return float(min(1.0, np.exp(-capital.max())))


def guaranteed_threshold(recorded: RecordedExits, most_loss: float, confidence: float) -> float:
    """Return one threshold for all exits; `NEVER` where no other can be promised.

    With a chance of at least ``confidence`` over the drawing of the recorded inputs, leaving by it costs at most
    ``most_loss`` of accuracy compared with the last exit.
    """
    return lowest_promised(shared_losses(recorded), most_loss, confidence)


def lowest_promised(losses: NDArray[np.int64], most_loss: float, confidence: float) -> float:
    """Return the last of the `SHARED` thresholds before the first whose test fails; losses [N, thresholds]."""
    passed = NEVER  # it costs nothing, and needs no test
    for number, threshold in enumerate(SHARED[1:], start=1):
        if betting_p_value(losses[:, number], most_loss, confidence) > 1 - confidence:
            break
        passed = threshold
    return passed
