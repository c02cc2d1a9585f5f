"""Find the placement with the least latency where boards are used in a given order, each alone or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.planning.board_groups import BoardGroup
from hyps.runtime.cluster.planning.problem import PipelineStage, Stages
from hyps.runtime.cluster.planning.run_table import CostArray, RunTable


def least_latency(table: RunTable, groups: Sequence[BoardGroup], most_boards: int) -> Stages | None:
    """Return the placement on at most ``most_boards`` boards, one of each group after the other, or None if none fits.

    A dynamic program over the boards in their order and the position in the steps.
    """
    boards = [(group, board.name) for group in groups for board in group.boards[:most_boards]][:most_boards]
    best = np.full(table.count + 1, np.inf)
    best[0] = 0.0
    starts: list[NDArray[np.int64]] = []
    known: dict[str, CostArray] = {}
    for group, _ in boards:
        name = group.sample.name
        known[name] = known[name] if name in known else table.latency_s(group)
        joined = best[: table.count, None] + known[name]
        chosen = joined.argmin(0)
        cost = joined[chosen, np.arange(table.count + 1)]
        starts.append(np.where(cost < best, chosen, -1))
        best = np.minimum(best, cost)
    if not np.isfinite(best[-1]):
        return None
    stages: list[PipelineStage] = []
    stop = table.count
    for (_, name), chosen in zip(reversed(boards), reversed(starts), strict=True):
        start = int(chosen[stop])
        if stop and start >= 0:
            stages.append(PipelineStage(steps=range(start, stop), boards=(name,)))
            stop = start
    return tuple(reversed(stages))
