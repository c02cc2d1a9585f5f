"""Place a network as a simple pipeline: one run of steps on each board, of about equal computing time.

It looks at neither memory, links nor storage, and is what a user would do by hand.
"""

from __future__ import annotations

import itertools

from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages, Workload


def simple_pipeline(workload: Workload, fleet: Fleet, count: int) -> Stages:
    """Return the placement on the first ``count`` boards, or on as many as there are steps."""
    steps, boards = workload.steps, fleet.boards[: min(count, len(workload.steps))]
    name = boards[0].board_class
    done = [0.0, *itertools.accumulate(step.seconds.get(name, 0.0) for step in steps)]
    bounds = [0]
    for place in range(1, len(boards)):
        aim = done[-1] * place / len(boards)
        allowed = range(bounds[-1] + 1, len(steps) - (len(boards) - place) + 1)
        bounds.append(min(allowed, key=lambda stop: abs(done[stop] - aim)))
    runs = itertools.pairwise([*bounds, len(steps)])
    return tuple(
        PipelineStage(steps=range(start, stop), boards=(board.name,))
        for board, (start, stop) in zip(boards, runs, strict=True)
    )
