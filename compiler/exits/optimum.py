"""Find the best actions by backward induction over binned confidences: the yardstick of what is learned.

The state is the exit, the bin of its largest probability, and the bin of the bandwidth. Costs are known, and the recorded
exits say how an input goes on. From the last exit backwards (Bellman 1957), the value of staying in a bin is the mean of
what its inputs gain by the best actions at later exits. These are their own gains and not their later bins' means, so that
nothing is lost where an earlier exit tells more than a later one (Longstaff and Schwartz 2001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.exits.rewards import Episodes
from hyps.runtime.exits.policies import BinnedActions, TablePolicy
from hyps.runtime.exits.state import ExitAction

#: Bins of confidence and of bandwidth, with equally many recorded inputs; fewer where a bin would hold less than so many.
_CONFIDENCES, _BANDWIDTHS, _LEAST = 24, 5, 20


def best_table(episodes: Episodes) -> TablePolicy:
    """Return the best action of every bin. Of equal ones, EXIT comes before STAY and STAY before OFFLOAD."""
    bandwidth = np.array([each.bandwidth for each in episodes.conditions])
    edges = _edges(bandwidth, _BANDWIDTHS)
    confidence = episodes.recorded.confidence.astype(np.float64)
    last = confidence.shape[1] - 1
    bins = max(1, min(_CONFIDENCES, len(confidence) // (_LEAST * (len(edges) + 1))))
    confidence_edges = [_edges(confidence[:, place], bins) for place in range(last)]
    rows = [
        _actions(episodes, confidence, confidence_edges, np.searchsorted(edges, bandwidth, "right") == number)
        for number in range(len(edges) + 1)
    ]
    return TablePolicy(
        tuple(edges),
        tuple(BinnedActions(confidence_edges[place], tuple(row[place] for row in rows)) for place in range(last)),
    )


def _actions(
    episodes: Episodes,
    confidence: NDArray[np.float64],
    edges: list[tuple[float, ...]],
    chosen: NDArray[np.bool_],
) -> list[tuple[ExitAction, ...]]:
    """Return the best action at every exit but the last, by bin of confidence, for the ``chosen`` episodes."""
    actions: list[tuple[ExitAction, ...]] = [()] * len(edges)
    ahead = episodes.exit[chosen, -1]  # the value of staying, for each episode
    for place in reversed(range(len(edges))):
        bins = np.searchsorted(edges[place], confidence[chosen, place], "right")
        counts = np.maximum(np.bincount(bins, minlength=len(edges[place]) + 1), 1)
        gains = np.stack([episodes.exit[chosen, place], ahead, episodes.offload[chosen, place]])
        best = np.argmax([np.bincount(bins, values, len(counts)) / counts for values in gains], axis=0)
        actions[place] = tuple((ExitAction.EXIT, ExitAction.STAY, ExitAction.OFFLOAD)[each] for each in best)
        ahead = gains[best[bins], np.arange(len(bins))]
    return actions


def _edges(values: NDArray[np.float64], bins: int) -> tuple[float, ...]:
    """Return ascending edges between bins of equally many values."""
    if bins < 2 or values.min() == values.max():
        return ()
    inner = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return tuple(float(edge) for edge in np.unique(inner) if edge > values.min())
