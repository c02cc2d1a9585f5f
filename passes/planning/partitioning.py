"""Choose the cuts of a model whose operators are split: those that are required, and those that the budget needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hyps.passes.cost.compute import SecondsArray
from hyps.passes.cost.latency import latency
from hyps.passes.cost.row_reads import row_read_cuts
from hyps.passes.planning.cuts import CutSearch
from hyps.passes.planning.exits import exit_cuts, exit_positions
from hyps.passes.planning.partitions import Segment
from hyps.passes.planning.request import Request
from hyps.passes.planning.required_cuts import layer_cuts, mandatory_cuts, pooling_cuts
from hyps.passes.planning.sharded_model import ShardedModel
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.runtime.bundle.manifest import Reason

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """Cut positions and the segments between them; ``computed_s`` are the seconds before every position (0..count)."""

    cuts: tuple[int, ...]
    segments: tuple[Segment, ...]
    computed_s: SecondsArray

    @property
    def peak_bytes(self) -> int:
        """The highest process peak of a segment that is a partition alone."""
        return max(segment.alone_bytes for segment in self.segments)


def best_partitioning(sharded: ShardedModel, request: Request, *, apart: bool = False) -> Partitioning | None:
    """Return the best cuts and the segments between them; None when none keep within the budget.

    ``apart`` makes every shard a partition of its own. A session's own order may need more than the planned one.
    Cuts for lower and lower budgets are then tried until the session's order, too, keeps within the budget.
    """
    graph, costs, sealed = sharded.costed.graph, sharded.costed.costs, sharded.costed.sealed
    budget = request.budget_bytes if request.budget_bytes is not None else _UNBOUNDED
    seconds, required = latency(graph, costs, request.device), required_cuts(sharded, request)
    required |= shard_cuts(sharded) if apart else frozenset()
    search = CutSearch(costs, seconds, sealed, required)
    reserve = 0
    while (cuts := search.best(budget - reserve)) is not None:
        found = Partitioning(cuts=cuts, segments=sharded.costed.segments.between(cuts), computed_s=seconds.computed_s)
        excess = found.peak_bytes - budget
        if excess <= 0:
            return found
        reserve = max(2 * reserve, excess)
    return None


def required_cuts(sharded: ShardedModel, request: Request) -> frozenset[int]:
    """Return the positions that are cut whatever the budget.

    With a budget, ``auto`` requires those around the reading of rows and the shards of codes only; without one, also the
    mandatory ones. So are those after exits.
    """
    graph, sealed = sharded.costed.graph, sharded.costed.sealed
    reading = row_read_cuts(graph) | _code_cuts(sharded) | exit_cuts(graph, request)
    mandatory = shard_cuts(sharded) | reading
    if request.split == "layers":
        return mandatory.union(layer_cuts(len(graph.operators), sealed))
    if request.split == "pooling":
        return mandatory.union(pooling_cuts(graph, sealed))
    return reading if request.split == "auto" and request.budget_bytes is not None else mandatory


def cut_reasons(sharded: ShardedModel, request: Request) -> Mapping[int, Reason]:
    """Return the reason of every required cut, by position; some without a text (see `partitions`)."""
    reasons: dict[int, Reason] = {}
    if request.split in ("pooling", "layers"):
        kind: Literal["optional", "layer"] = "optional" if request.split == "pooling" else "layer"
        reasons = dict.fromkeys(required_cuts(sharded, request), Reason(kind=kind, text=""))
    for split, (first, last) in _shard_spans(sharded):
        reason = Reason(kind=split.reason.kind, text=f"{split.reason.text}: {split.count} shards")
        reasons |= dict.fromkeys((first, last + 1), reason)
    for name, position in exit_positions(sharded.costed.graph, request.exits[:-1]).items():
        reasons[position] = Reason(kind="requested", text=f"after exit {name}: an inference may end before this step")
    return reasons


def shard_cuts(sharded: ShardedModel) -> frozenset[int]:
    """Return the positions around every shard."""
    spans = [span for _, span in _shard_spans(sharded)]
    return frozenset(mandatory_cuts(spans, len(sharded.costed.graph.operators)))


def _code_cuts(sharded: ShardedModel) -> frozenset[int]:
    """Return the positions around every shard of an operator that has a code."""
    spans = [span for split, span in _shard_spans(sharded) if split.code]
    return frozenset(mandatory_cuts(spans, len(sharded.costed.graph.operators)))


def _shard_spans(sharded: ShardedModel) -> Iterator[tuple[ShardSpec, tuple[int, int]]]:
    """Yield for every shard, in order, its split and the indices of its first and last operator.

    The first is what was sliced or copied for the shard. The last shard of an operator includes what merges the shards, and
    the operators that onnxruntime fuses into that. The shards of an operator that has a code end before what merges them.
    """
    firsts: dict[tuple[str, int], int] = {}
    lasts: dict[str, int] = {}
    merges: dict[str, int] = {}
    for index, operator in enumerate(sharded.costed.graph.operators):
        if (origin := operator.origin) is not None and origin.kind != "tile":
            lasts[origin.operator] = index
            if origin.kind == "shard":
                firsts.setdefault((origin.operator, origin.index), index)
            elif origin.kind == "merge":
                merges.setdefault(origin.operator, index)
    for split in sharded.splits:
        stop = merges[split.operator] if split.code else lasts[split.operator] + 1
        while not split.code and stop in sharded.costed.sealed:
            stop += 1
        starts = [firsts[split.operator, index] for index in range(split.count)]
        for first, next_first in itertools.pairwise([*starts, stop]):
            yield split, (first, next_first - 1)
