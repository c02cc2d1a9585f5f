"""Say in words why a stage of a placement is as it is, and how near the placement is to the best."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.cluster.planning.evaluation import BoardCost, Evaluation
from hyps.runtime.cluster.planning.planner import PlannedPlacement
from hyps.runtime.cluster.planning.problem import PipelineStage, Stages
from hyps.runtime.units import megabytes


def with_reasons(stages: Stages, figures: Evaluation) -> Stages:
    """Return the stages, each with its reason."""
    return tuple(
        PipelineStage(
            steps=stage.steps,
            boards=stage.boards,
            sharing=stage.sharing,
            shares=stage.shares,
            reason=_reason(stage, number, figures),
        )
        for number, stage in enumerate(stages)
    )


def _reason(stage: PipelineStage, number: int, figures: Evaluation) -> str:
    costs = [cost for cost in figures.boards if cost.stage == number]
    own = figures.stages[number]
    slowest = max(costs, key=lambda cost: cost.period_s)
    if stage.sharing == "replicas":
        how = f"{len(costs)} replicas, as one alone takes {seconds_text(slowest.period_s)}, most of it {own.bound_by}"
    elif stage.sharing == "shards":
        how = f"{len(costs)} parts side by side, the slowest takes {seconds_text(own.period_s)}, most of it {own.bound_by}"
    else:
        how = f"{seconds_text(own.period_s)}, most of it {own.bound_by}"
    return f"{how}; {_weights(costs)}{_rank(number, figures)}"


def _weights(costs: Sequence[BoardCost]) -> str:
    streamed = max(cost.holding.streamed_bytes for cost in costs)
    return f"{megabytes(streamed)} of weights are read for every input" if streamed else "all weights stay in memory"


def _rank(number: int, figures: Evaluation) -> str:
    return "; the slowest stage" if figures.slowest == number and len(figures.stages) > 1 else ""


def quality(planned: PlannedPlacement, reached: float) -> str:
    """Return in words how good a placement is, whose objective is ``reached``."""
    gap = max(1 - planned.bound / reached, 0.001)
    text = "no placement is better" if planned.is_exact else f"within {gap:.1%} of the best"
    if planned.lacks_partitioner:
        text += "; branches were placed without mtkahypar, which may do better: pip install 'hyps[placement]'"
    return text


def seconds_text(seconds: float) -> str:
    """Return seconds with three digits: ``1.23 s``, ``45.6 ms``."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
