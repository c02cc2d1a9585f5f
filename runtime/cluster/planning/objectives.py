"""Compare placements by an objective: throughput, latency or energy, and what is nearly as good to have."""

from __future__ import annotations

from collections.abc import Callable

from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.improvement import ObjectiveKey
from hyps.runtime.cluster.planning.optimal import Objective

#: The key of a placement's figures for each objective: less is better.
KEYS: dict[Objective, Callable[[Evaluation], ObjectiveKey]] = {
    "throughput": lambda figures: (_rounded(figures.period_s), figures.latency_s, figures.crossing_bytes),
    "latency": lambda figures: (_rounded(figures.latency_s), figures.crossing_bytes),
    "energy": lambda figures: (_rounded(figures.energy_j), figures.latency_s),
}


def _rounded(value: float) -> float:
    """Return a figure without what the order of sums makes of it, so that equal ones are equal."""
    return float(f"{value:.10g}")
