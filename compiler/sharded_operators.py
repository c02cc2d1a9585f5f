"""Name the operator of the model that each step of a plan computes a shard of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyps.passes.graph import Graph
from hyps.passes.planning.planner import PlannedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedOperator:
    """An operator of the model that a plan computes in shards: how many, and the bytes of its largest weight."""

    name: str
    count: int
    weight_bytes: int


def sharded_operators(planned: PlannedModel, whole: Graph) -> Iterator[ShardedOperator | None]:
    """Yield, for each partition of a plan, the operator of the ``whole`` model that it computes a shard of."""
    changed = {change.operator for change in planned.plan.changes}
    origins = {operator.name: operator.origin for operator in planned.graph.operators}
    weight_bytes = {
        operator.name: max((whole.weights[name].nbytes for name in operator.weights), default=0)
        for operator in whole.operators
    }
    for partition in planned.plan.partitions:
        found = (origins[name] for name in partition.operators)
        shard = next((each for each in found if each and each.kind == "shard" and each.operator in changed), None)
        yield (
            ShardedOperator(name=shard.operator, count=shard.count, weight_bytes=weight_bytes.get(shard.operator, 0))
            if shard
            else None
        )
