"""From a model to partitions that fit: order its operators, split those that are too big, cut where it takes least time."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from onnx import ModelProto

from hyps.passes.cost.compute import SecondsArray
from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.fusion import fused_positions, fusion_groups
from hyps.passes.cost.latency import latency
from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import Graph, view
from hyps.passes.planning.cuts import best_cuts
from hyps.passes.planning.grouping import gathered_order
from hyps.passes.planning.order import lowest_peak_order, reordered
from hyps.passes.planning.partitions import partitions
from hyps.passes.planning.plan import Partition
from hyps.passes.planning.request import Request
from hyps.passes.planning.required_cuts import layer_cuts, mandatory_cuts, pooling_cuts
from hyps.passes.rewrite import Change, run_rewrites
from hyps.passes.sharding.graph_editor import shard_name
from hyps.passes.sharding.layouts import Method, method_phrase
from hyps.passes.sharding.oversize import Threshold, oversize
from hyps.passes.sharding.rewrite import Shard, ShardSpec
from hyps.passes.sharding.shard_options import ShardOptions
from hyps.passes.weights import Model
from hyps.runtime.bundle.manifest import Reason

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class CostedModel:
    """A model with its graph, costs, the cut positions that would part fused operators, and how operators can be split.

    ``shards`` are the models that splits made of it, with what was done: many budgets lead to the same splits.
    """

    model: Model
    graph: Graph
    costs: Costs
    sealed: frozenset[int]
    shard_options: ShardOptions
    shards: dict[tuple[tuple[str, Method, int], ...], tuple[CostedModel, tuple[Change, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """A model after horizontal splits, and the operators that were split."""

    costed: CostedModel
    changes: tuple[Change, ...]
    splits: tuple[ShardSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """Cut positions and the partitions between them; ``computed_s`` are the seconds before every position (0..count)."""

    cuts: tuple[int, ...]
    partitions: tuple[Partition, ...]
    computed_s: SecondsArray


def best_partitioning(sharded: Sharded, request: Request, *, apart: bool = False) -> Partitioning | None:
    """The best cuts and their partitions; None when none keep within the budget. ``apart``: every shard by itself.

    Where a session's own order needs more than the planned one, cuts for less are tried until that keeps within it, too.
    """
    graph, costs, sealed = sharded.costed.graph, sharded.costed.costs, sharded.costed.sealed
    budget = request.budget_bytes if request.budget_bytes is not None else _UNBOUNDED
    took, wanted, reasons = latency(graph, costs, request.device), wanted_cuts(sharded, request), _reasons(sharded, request)
    wanted |= shard_cuts(sharded) if apart else frozenset()
    spare = 0
    while (cuts := best_cuts(costs, took, sealed, wanted, budget - spare)) is not None:
        parts = partitions(graph, costs, cuts, reasons)
        excess = max(part.peak_bytes for part in parts) - budget
        if excess <= 0:
            return Partitioning(cuts=cuts, partitions=parts, computed_s=took.computed_s)
        spare = max(2 * spare, excess)
    return None


def _costed(model: Model, graph: Graph, prints: Mapping[str, Footprint], request: Request) -> CostedModel:
    found = costs(graph, prints, request.process_bytes)
    ways = ShardOptions(model, graph, found, request.threads)
    return CostedModel(model=model, graph=graph, costs=found, sealed=fused_positions(graph), shard_options=ways)


def ordered(model: Model, request: Request) -> CostedModel:
    """The model with its operators in the order of the lowest peak; untouched where that is the given order."""
    graph = view(model)
    prints = footprints(graph, request.threads)
    return _costed(*_in_order(model, graph, lowest_peak_order(graph, prints, fusion_groups(graph)).order), prints, request)


def gathered(whole: CostedModel, tileable: Collection[str], request: Request) -> CostedModel:
    """The model with the operators ``tileable`` next to each other; untouched where they are."""
    order = gathered_order(whole.graph, tileable)
    if order == tuple(range(len(order))):
        return whole
    return _costed(*_in_order(whole.model, whole.graph, order), footprints(whole.graph, request.threads), request)


def _in_order(model: Model, graph: Graph, order: tuple[int, ...]) -> tuple[Model, Graph]:
    if order == tuple(range(len(order))):
        return model, graph
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.node[:]
    proto.graph.node.extend(model.proto.graph.node[index] for index in order)
    return Model(proto=proto, weights=model.weights), reordered(graph, order)


def with_costs(model: Model, request: Request) -> CostedModel:
    """A model whose operators keep their order."""
    graph = view(model)
    return _costed(model, graph, footprints(graph, request.threads), request)


def shard(
    whole: CostedModel,
    request: Request,
    *,
    exact: bool = False,
    product_bytes: int | None = None,
    given_bytes: int | None = None,
) -> Sharded:
    """Split the operators that the request names, and those that exceed its threshold by themselves (see `Threshold`)."""
    asked = tuple(_asked(whole.shard_options, request))
    threshold = Threshold(
        budget_bytes=request.budget_bytes,
        max_params=request.max_params,
        methods=request.methods,
        product_bytes=product_bytes,
        given_bytes=given_bytes,
        exact=exact,
    )
    named = [split.operator for split in asked]
    splits = (*asked, *oversize(whole.shard_options, threshold, request.device, named))
    counts = tuple((split.operator, split.method, split.count) for split in splits)
    if counts and counts not in whole.shards:
        rewritten = run_rewrites(whole.model, [Shard(splits=splits)])
        whole.shards[counts] = (with_costs(rewritten.model, request), rewritten.changes)
    split, changes = whole.shards[counts] if counts else (whole, ())
    told = tuple(replace(change, why=str(split.reason)) for change, split in zip(changes, splits, strict=True))
    return Sharded(costed=split, changes=told, splits=splits)


def _asked(options: ShardOptions, request: Request) -> Iterator[ShardSpec]:
    """The splits that the user asks for; raises `UnsupportedModel` for one that cannot be, with what is possible."""
    places = {operator.name: index for index, operator in enumerate(options.graph.operators)}
    for asked in request.shards:
        if asked.operator not in places:
            known = [operator.name for operator in options.graph.operators if options.of(places[operator.name])]
            some = ", ".join([*map(repr, known[:5]), *(["..."] if len(known) > 5 else [])]) or "none"
            raise UnsupportedModel(f"--shard: no operator is called {asked.operator!r}; those that can be split: {some}")
        option = options.by(places[asked.operator], asked.method)
        if asked.count > option.layout.max_shards:
            raise UnsupportedModel(
                f"--shard: {asked.operator!r} can be split {method_phrase(option.node, asked.method)} into 2 to {option.layout.max_shards} "
                f"shards, not {asked.count}"
            )
        yield ShardSpec(
            operator=asked.operator, method=asked.method, count=asked.count, reason=Reason(kind="requested", text="--shard")
        )


def wanted_cuts(sharded: Sharded, request: Request) -> frozenset[int]:
    """The positions that are cut whatever the budget; without a budget, ``auto`` has none but the mandatory ones."""
    graph, sealed = sharded.costed.graph, sharded.costed.sealed
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
    return frozenset(mandatory_cuts(spans, len(sharded.costed.graph.operators)))


def _shard_spans(sharded: Sharded) -> Iterator[tuple[ShardSpec, tuple[int, int]]]:
    """For every shard, in order: the split it belongs to and the indices of its first and last operator.

    The last shard of an operator takes the Concat with it, and what onnxruntime computes with what the shard ends in.
    """
    names = [operator.name for operator in sharded.costed.graph.operators]
    index = {name: position for position, name in enumerate(names)}
    for split in sharded.splits:
        starts = []
        for shard in range(split.count):
            start = index[shard_name(split.operator, shard, split.count)]
            while start and names[start - 1].endswith(shard_name("", shard, split.count)):  # copied or sliced for it
                start -= 1
            starts.append(start)
        ends = (f"{split.operator}/concat", shard_name(f"{split.operator}/sum", split.count - 1, split.count))
        stop = 1 + next((index[end] for end in ends if end in index), index[shard_name(split.operator, shard, split.count)])
        while stop in sharded.costed.sealed:
            stop += 1
        for first, behind in itertools.pairwise([*starts, stop]):
            yield split, (first, behind - 1)


def _reasons(sharded: Sharded, request: Request) -> Mapping[int, Reason]:
    """Return the reason of every cut that is there whatever the budget, by position; some without a text."""
    reasons: dict[int, Reason] = {}
    if request.split in ("pooling", "layers"):
        kind: Literal["optional", "layer"] = "optional" if request.split == "pooling" else "layer"
        reasons = dict.fromkeys(wanted_cuts(sharded, request), Reason(kind=kind, text=""))
    for split, (first, last) in _shard_spans(sharded):
        reason = Reason(kind=split.reason.kind, text=f"{split.reason.text}: {split.count} shards")
        reasons |= dict.fromkeys((first, last + 1), reason)
    return reasons
