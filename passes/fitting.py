"""From a model to partitions that fit: order its operators, split those that are too big, cut where it takes least time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import ModelProto

from hyps.passes.costs import Costs, costs
from hyps.passes.cuts import best_cuts
from hyps.passes.footprint import Footprint, footprints
from hyps.passes.fusion import fusion_groups, sealed_positions
from hyps.passes.graph import Graph, view
from hyps.passes.latency import latency
from hyps.passes.order import lowest_peak_order, reordered
from hyps.passes.oversize import Oversize, Threshold, oversize
from hyps.passes.partitions import partitions
from hyps.passes.plan import Partition
from hyps.passes.request import Request
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.shard import ShardByOutput, shard_name
from hyps.passes.wanted import layer_cuts, mandatory_cuts, pooling_cuts
from hyps.passes.weights import Model
from hyps.passes.work import Seconds

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A model with its graph, costs, and the cut positions that would part fused operators."""

    model: Model
    graph: Graph
    costs: Costs
    sealed: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """A model after horizontal splits, and the operators that were split."""

    measured: Measured
    rewritten: Rewritten
    splits: tuple[Oversize, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """Cut positions and the partitions between them; ``computed_s`` are the seconds before every position (0..count)."""

    cuts: tuple[int, ...]
    partitions: tuple[Partition, ...]
    computed_s: Seconds


def fitting(sharded: Sharded, request: Request, *, apart: bool = False) -> Fitting | None:
    """The best cuts and their partitions; None when none keep within the budget. ``apart``: every shard by itself.

    Where a session's own order needs more than the planned one, cuts for less are tried until that keeps within it, too.
    """
    graph, costs, sealed = sharded.measured.graph, sharded.measured.costs, sharded.measured.sealed
    budget = request.budget_bytes if request.budget_bytes is not None else _UNBOUNDED
    took, wanted, reasons = latency(graph, costs, request.device), wanted_cuts(sharded, request), _reasons(sharded, request)
    wanted |= shard_cuts(sharded) if apart else frozenset()
    spare = 0
    while (cuts := best_cuts(costs, took, sealed, wanted, budget - spare)) is not None:
        parts = partitions(graph, costs, cuts, reasons)
        excess = max(part.peak_bytes for part in parts) - budget
        if excess <= 0:
            return Fitting(cuts=cuts, partitions=parts, computed_s=took.computed_s)
        spare = max(2 * spare, excess)
    return None


def _with_costs(model: Model, graph: Graph, prints: Mapping[str, Footprint], request: Request) -> Measured:
    return Measured(
        model=model, graph=graph, costs=costs(graph, prints, request.process_bytes), sealed=sealed_positions(graph)
    )


def ordered(model: Model, request: Request) -> Measured:
    """The model with its operators in the order of the lowest peak; untouched where that is the given order."""
    graph = view(model)
    prints = footprints(graph, request.threads)
    order = lowest_peak_order(graph, prints, fusion_groups(graph)).order
    if order != tuple(range(len(order))):
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        del proto.graph.node[:]
        proto.graph.node.extend(model.proto.graph.node[index] for index in order)
        model, graph = Model(proto=proto, weights=model.weights), reordered(graph, order)
    return _with_costs(model, graph, prints, request)


def measured(model: Model, request: Request) -> Measured:
    """A model whose operators keep their order."""
    graph = view(model)
    return _with_costs(model, graph, footprints(graph, request.threads), request)


def shard(whole: Measured, request: Request) -> Sharded:
    """Split the operators that exceed the request's threshold by themselves."""
    threshold = Threshold(budget_bytes=request.budget_bytes, max_params=request.max_params)
    splits = oversize(whole.model, whole.graph, whole.costs, threshold)
    counts = {split.operator: split.shards for split in splits}
    reasons = {split.operator: split.reason for split in splits}
    rewritten = run_rewrites(whole.model, [ShardByOutput(counts=counts, reasons=reasons)])
    return Sharded(
        measured=measured(rewritten.model, request) if rewritten.modified else whole, rewritten=rewritten, splits=splits
    )


def wanted_cuts(sharded: Sharded, request: Request) -> frozenset[int]:
    """The positions that are cut whatever the budget; without a budget, ``auto`` has none but the mandatory ones."""
    graph, sealed = sharded.measured.graph, sharded.measured.sealed
    count = len(graph.operators)
    mandatory = shard_cuts(sharded)
    if request.split == "layers":
        return mandatory.union(layer_cuts(count, sealed))
    if request.split == "pooling":
        return mandatory.union(pooling_cuts(graph, sealed))
    return frozenset() if request.split == "auto" and request.budget_bytes is not None else mandatory


def shard_cuts(sharded: Sharded) -> frozenset[int]:
    """The positions around every shard."""
    spans = [span for _, span in _shard_spans(sharded)]
    return frozenset(mandatory_cuts(spans, len(sharded.measured.graph.operators)))


def _shard_spans(sharded: Sharded) -> Iterator[tuple[Oversize, tuple[int, int]]]:
    """For every shard, in order: the split it belongs to and the indices of its first and last operator.

    The last shard of an operator takes the Concat with it.
    """
    index = {operator.name: position for position, operator in enumerate(sharded.measured.graph.operators)}
    for split in sharded.splits:
        starts = [index[shard_name(split.operator, shard, split.shards)] for shard in range(split.shards)]
        stops = [*starts[1:], index[f"{split.operator}/concat"] + 1]
        for first, stop in zip(starts, stops, strict=True):
            yield split, (first, stop - 1)


def _reasons(sharded: Sharded, request: Request) -> Mapping[int, str]:
    """The reason of every cut that is there whatever the budget, by position."""
    wanted = wanted_cuts(sharded, request)
    reasons = dict.fromkeys(wanted, {"pooling": "optional", "layers": "layer"}.get(request.split, ""))
    for split, (first, last) in _shard_spans(sharded):
        reasons |= dict.fromkeys((first, last + 1), f"{split.reason}: {split.shards} shards")
    return reasons
