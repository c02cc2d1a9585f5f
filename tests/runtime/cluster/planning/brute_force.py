"""Evaluate every placement of a small problem."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hyps.runtime.cluster.planning.evaluation import Evaluation, evaluate
from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages, Workload
from hyps.runtime.cluster.planning.transfers import KnownCosts
from hyps.runtime.errors import BudgetError


def every_stage(steps: range, free: tuple[str, ...], most: int) -> Iterator[PipelineStage]:
    """Yield the stages of a run on any of the free boards."""
    for count in range(1, min(len(free), most) + 1):
        for boards in itertools.combinations(free, count):
            yield PipelineStage(steps=steps, boards=boards, sharing="alone" if count == 1 else "replicas")
            if count == 1:
                continue
            for owners in itertools.product(range(count), repeat=len(steps)):
                if len(set(owners)) == count:
                    shares = tuple(
                        tuple(step for step, owner in zip(steps, owners, strict=True) if owner == each)
                        for each in range(count)
                    )
                    yield PipelineStage(steps=steps, boards=boards, sharing="shards", shares=shares)


def every_placement(start: int, count: int, free: tuple[str, ...], most: int) -> Iterator[Stages]:
    """Yield the placements of the steps from ``start`` on."""
    if start == count:
        yield ()
        return
    for stop in range(start + 1, count + 1):
        for stage in every_stage(range(start, stop), free, most):
            left = tuple(name for name in free if name not in stage.boards)
            for rest in every_placement(stop, count, left, most - len(stage.boards)):
                yield (stage, *rest)


def used(fleet: Fleet, stages: Stages) -> Fleet:
    """Return the fleet without the boards that hold nothing: they are switched off."""
    names = {name for stage in stages for name in stage.boards}
    return Fleet(
        boards=tuple(board for board in fleet.boards if board.name in names),
        links=fleet.links,
        hub_watts=fleet.hub_watts,
        shared_links=fleet.shared_links,
    )


def evaluations(workload: Workload, fleet: Fleet, most: int) -> Iterator[Evaluation]:
    """Yield the figures of every placement that fits."""
    known = KnownCosts(workload)
    names = tuple(board.name for board in fleet.boards)
    for stages in every_placement(0, len(workload.steps), names, most):
        try:
            yield evaluate(workload, used(fleet, stages), stages, known)
        except (BudgetError, ValueError):
            continue
