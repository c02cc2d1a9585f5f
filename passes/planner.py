"""From a model and a budget to a plan: shard what does not fit, then choose the cuts, then say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from onnx import ModelProto

from hyps.passes.costs import Costs, costs
from hyps.passes.cuts import best_cuts, smallest_peak
from hyps.passes.device import Device
from hyps.passes.errors import DoesNotFit
from hyps.passes.exactness import inexact_reason
from hyps.passes.footprint import Footprint, footprints
from hyps.passes.fusion import fusion_groups, sealed_positions
from hyps.passes.graph import Graph, view
from hyps.passes.latency import latency
from hyps.passes.order import lowest_peak_order, reordered
from hyps.passes.oversize import Oversize, Threshold, finest, oversize
from hyps.passes.partitions import partitions
from hyps.passes.plan import Partition, Plan, check_plan
from hyps.passes.reach import first_that, fits
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.session_order import session_order
from hyps.passes.shard import ShardByOutput, shard_name
from hyps.passes.units import megabytes
from hyps.passes.wanted import layer_cuts, mandatory_cuts, pooling_cuts
from hyps.passes.weights import Model

Split = Literal["auto", "mandatory", "pooling", "layers"]

#: Budgets are proposed to users in steps of this many bytes.
BUDGET_STEP_BYTES = 100_000
_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to plan for: a budget in bytes, the thesis's threshold in parameters, or both; how to cut; and the device."""

    budget_bytes: int | None = None
    max_params: int | None = None
    split: Split = "auto"
    threads: int = 1
    device: Device = field(default_factory=Device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with the rewritten model it belongs to."""

    model: Model
    graph: Graph
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A model with its graph, costs, and the cut positions that would part fused operators."""

    model: Model
    graph: Graph
    costs: Costs
    sealed: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sharded:
    """A model after horizontal splits, and the operators that were split."""

    measured: _Measured
    rewritten: Rewritten
    splits: tuple[Oversize, ...]


def plan(model: Model, request: Request) -> Planned:
    """Plan a model whose shapes are known.

    Raises `DoesNotFit`, with the operator and the smallest budget that works, when no plan keeps within the budget.
    """
    whole = _ordered(model, request.threads)
    sharded = _shard(whole, request)
    graph = sharded.measured.graph
    fitting = _fitting(sharded, request)
    if fitting is None:
        raise _does_not_fit(whole, sharded.measured, request)
    cuts, parts = fitting
    result = Plan(
        partitions=parts,
        changes=sharded.rewritten.changes,
        budget_bytes=request.budget_bytes if request.budget_bytes is not None else max(part.peak_bytes for part in parts),
        threads=request.threads,
        whole_peak_bytes=int(whole.costs.peaks_from(0)[-1]),
        smallest_budget_bytes=_smallest_budget(whole, request),
        inexact_reason=inexact_reason(whole.model, whole.graph, sharded.splits, graph, cuts, request.threads),
    )
    check_plan(graph, result)
    return Planned(model=sharded.measured.model, graph=graph, plan=result)


def _fitting(sharded: _Sharded, request: Request) -> tuple[tuple[int, ...], tuple[Partition, ...]] | None:
    """The best cuts and their partitions; None when none keep within the budget.

    Where a session's own order needs more than the planned one, cuts for less are tried until that keeps within it, too.
    """
    graph, costs, sealed = sharded.measured.graph, sharded.measured.costs, sharded.measured.sealed
    budget = request.budget_bytes if request.budget_bytes is not None else _UNBOUNDED
    took, wanted, reasons = latency(graph, costs, request.device), _wanted_cuts(sharded, request), _reasons(sharded, request)
    spare = 0
    while (cuts := best_cuts(costs, took, sealed, wanted, budget - spare)) is not None:
        parts = partitions(graph, costs, cuts, reasons)
        excess = max(part.peak_bytes for part in parts) - budget
        if excess <= 0:
            return cuts, parts
        spare = max(2 * spare, excess)
    return None


def _smallest_budget(whole: _Measured, request: Request) -> int:
    """The least budget, in steps of `BUDGET_STEP_BYTES`, that a plan as requested keeps within; found by trying.

    Starts at a bound that no plan can beat: every splittable operator in its smallest shards.
    """
    operators = range(len(whole.graph.operators))
    runs_as_planned = session_order(whole.graph, operators, whole.graph.outputs) == tuple(operators)

    def works(steps: int) -> bool:
        wanted = replace(request, budget_bytes=steps * BUDGET_STEP_BYTES)
        sharded = _shard(whole, wanted)
        found = fits(sharded.measured.costs, tuple(sorted(_wanted_cuts(sharded, wanted))), steps * BUDGET_STEP_BYTES)
        return found and (runs_as_planned or _fitting(sharded, wanted) is not None)

    bound = smallest_peak(finest(whole.model, whole.graph, whole.costs), step_bytes=BUDGET_STEP_BYTES)
    return first_that(works, bound // BUDGET_STEP_BYTES) * BUDGET_STEP_BYTES


def _measured(model: Model, threads: int) -> _Measured:
    graph = view(model)
    return _with_costs(model, graph, footprints(graph, threads))


def _with_costs(model: Model, graph: Graph, prints: Mapping[str, Footprint]) -> _Measured:
    return _Measured(model=model, graph=graph, costs=costs(graph, prints), sealed=sealed_positions(graph))


def _ordered(model: Model, threads: int) -> _Measured:
    """The model with its operators in the order of the lowest peak; untouched where that is the given order."""
    graph = view(model)
    prints = footprints(graph, threads)
    order = lowest_peak_order(graph, prints, fusion_groups(graph)).order
    if order != tuple(range(len(order))):
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        del proto.graph.node[:]
        proto.graph.node.extend(model.proto.graph.node[index] for index in order)
        model, graph = Model(proto=proto, weights=model.weights), reordered(graph, order)
    return _with_costs(model, graph, prints)


def _shard(whole: _Measured, request: Request) -> _Sharded:
    threshold = Threshold(budget_bytes=request.budget_bytes, max_params=request.max_params)
    splits = oversize(whole.model, whole.graph, whole.costs, threshold)
    counts = {split.operator: split.shards for split in splits}
    reasons = {split.operator: split.reason for split in splits}
    rewritten = run_rewrites(whole.model, [ShardByOutput(counts=counts, reasons=reasons)])
    measured = _measured(rewritten.model, request.threads) if rewritten.modified else whole
    return _Sharded(measured=measured, rewritten=rewritten, splits=splits)


def _wanted_cuts(sharded: _Sharded, request: Request) -> frozenset[int]:
    """The positions that are cut whatever the budget; without a budget, ``auto`` has none but the mandatory ones."""
    graph, sealed = sharded.measured.graph, sharded.measured.sealed
    count = len(graph.operators)
    mandatory = frozenset(mandatory_cuts([span for _, span in _shard_spans(sharded)], count))
    if request.split == "layers":
        return mandatory.union(layer_cuts(count, sealed))
    if request.split == "pooling":
        return mandatory.union(pooling_cuts(graph, sealed))
    return frozenset() if request.split == "auto" and request.budget_bytes is not None else mandatory


def _shard_spans(sharded: _Sharded) -> Iterator[tuple[Oversize, tuple[int, int]]]:
    """For every shard, in order: the split it belongs to and the indices of its first and last operator.

    The last shard of an operator takes the Concat with it.
    """
    index = {operator.name: position for position, operator in enumerate(sharded.measured.graph.operators)}
    for split in sharded.splits:
        starts = [index[shard_name(split.operator, shard, split.shards)] for shard in range(split.shards)]
        stops = [*starts[1:], index[f"{split.operator}/concat"] + 1]
        for first, stop in zip(starts, stops, strict=True):
            yield split, (first, stop - 1)


def _reasons(sharded: _Sharded, request: Request) -> Mapping[int, str]:
    """The reason of every cut that is there whatever the budget, by position."""
    wanted = _wanted_cuts(sharded, request)
    reasons = dict.fromkeys(wanted, {"pooling": "optional", "layers": "layer"}.get(request.split, ""))
    for split, (first, last) in _shard_spans(sharded):
        reasons |= dict.fromkeys((first, last + 1), f"{split.reason}: {split.shards} shards")
    return reasons


def _does_not_fit(whole: _Measured, sharded: _Measured, request: Request) -> DoesNotFit:
    assert request.budget_bytes is not None
    smallest = _smallest_budget(whole, request)
    needs = sharded.costs.alone()
    worst = int(needs.argmax())
    operator = sharded.graph.operators[worst]
    return DoesNotFit(
        f"{operator.op_type} {operator.name!r} needs {megabytes(int(needs[worst]))} by itself, the budget is "
        f"{megabytes(request.budget_bytes)}; the smallest budget that works is {megabytes(smallest)}",
        operator=operator.name,
        needed_bytes=int(needs[worst]),
        smallest_budget_bytes=smallest,
    )
