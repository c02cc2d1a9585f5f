"""From a model and a budget to a plan: shard what does not fit, then choose the cuts, then say why."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hyps.passes.costs import Costs, costs
from hyps.passes.cuts import best_cuts, layer_cuts, mandatory_cuts, pooling_cuts, smallest_peak
from hyps.passes.errors import DoesNotFit
from hyps.passes.exactness import inexact_reason
from hyps.passes.footprint import footprints
from hyps.passes.fusion import sealed_positions
from hyps.passes.graph import Graph, view
from hyps.passes.oversize import Oversize, Threshold, finest, oversize
from hyps.passes.partitions import partitions
from hyps.passes.plan import Plan, check_plan
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.shard import ShardByOutput, shard_name
from hyps.passes.units import megabytes
from hyps.passes.weights import Model

Split = Literal["auto", "mandatory", "pooling", "layers"]

#: Budgets are proposed to users in steps of this many bytes.
BUDGET_STEP_BYTES = 100_000
_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to plan for: a budget in bytes, the thesis's threshold in parameters, or both; and how to cut."""

    budget_bytes: int | None = None
    max_params: int | None = None
    split: Split = "auto"
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with the rewritten model it belongs to."""

    model: Model
    graph: Graph
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sharded:
    """A model after horizontal splits, with its costs and the operators that were split."""

    rewritten: Rewritten
    graph: Graph
    costs: Costs
    splits: tuple[Oversize, ...]


def plan(model: Model, request: Request) -> Planned:
    """Plan a model whose shapes are known.

    Raises `DoesNotFit`, with the operator and the smallest budget that works, when no plan keeps within the budget.
    """
    whole = _measured(model, request.threads)
    sharded = _shard(model, *whole, request)
    cuts = _cuts(sharded, request)
    if cuts is None:
        raise _does_not_fit(model, whole, sharded, request)
    parts = partitions(sharded.graph, sharded.costs, cuts, _reasons(sharded, request))
    peak = max(part.peak_bytes for part in parts)
    result = Plan(
        partitions=parts,
        changes=sharded.rewritten.changes,
        budget_bytes=request.budget_bytes if request.budget_bytes is not None else peak,
        threads=request.threads,
        whole_peak_bytes=int(whole[1].peaks_from(0)[-1]),
        smallest_budget_bytes=smallest_budget(model, whole, request),
        inexact_reason=inexact_reason(model, whole[0], sharded.splits, sharded.graph, cuts, request.threads),
    )
    check_plan(sharded.graph, result)
    return Planned(model=sharded.rewritten.model, graph=sharded.graph, plan=result)


def smallest_budget(model: Model, whole: tuple[Graph, Costs], request: Request) -> int:
    """The least budget, in steps of `BUDGET_STEP_BYTES`, that a plan as requested keeps within; found by planning for it.

    Starts at a bound that no plan can beat (every splittable operator in its smallest shards), goes up until a plan
    succeeds, and closes in on the first that does.
    """

    def works(steps: int) -> bool:
        wanted = replace(request, budget_bytes=steps * BUDGET_STEP_BYTES)
        return _cuts(_shard(model, *whole, wanted), wanted) is not None

    fails = -(-smallest_peak(finest(model, *whole)) // BUDGET_STEP_BYTES) - 1
    stride = 1
    while not works(fails + stride):
        fails, stride = fails + stride, stride * 2
    candidates = range(fails + 1, fails + stride)
    return (candidates.start + bisect_left(candidates, True, key=works)) * BUDGET_STEP_BYTES


def _measured(model: Model, threads: int) -> tuple[Graph, Costs]:
    graph = view(model)
    return graph, costs(graph, footprints(graph, threads))


def _shard(model: Model, graph: Graph, whole: Costs, request: Request) -> _Sharded:
    threshold = Threshold(budget_bytes=request.budget_bytes, max_params=request.max_params)
    splits = oversize(model, graph, whole, threshold)
    counts = {split.operator: split.shards for split in splits}
    reasons = {split.operator: split.reason for split in splits}
    rewritten = run_rewrites(model, [ShardByOutput(counts=counts, reasons=reasons)])
    if rewritten.modified:
        graph, whole = _measured(rewritten.model, request.threads)
    return _Sharded(rewritten=rewritten, graph=graph, costs=whole, splits=splits)


def _cuts(sharded: _Sharded, request: Request) -> tuple[int, ...] | None:
    sealed = sealed_positions(sharded.graph)
    budget = request.budget_bytes if request.budget_bytes is not None else _UNBOUNDED
    return best_cuts(sharded.costs, sealed, _wanted_cuts(sharded, sealed, request), budget)


def _wanted_cuts(sharded: _Sharded, sealed: frozenset[int], request: Request) -> frozenset[int]:
    """The positions that are cut whatever the budget; without a budget, ``auto`` has none but the mandatory ones."""
    count = len(sharded.graph.operators)
    mandatory = frozenset(mandatory_cuts([span for _, span in _shard_spans(sharded)], count))
    if request.split == "layers":
        return mandatory.union(layer_cuts(count, sealed))
    if request.split == "pooling":
        return mandatory.union(pooling_cuts(sharded.graph, sealed))
    return frozenset() if request.split == "auto" and request.budget_bytes is not None else mandatory


def _shard_spans(sharded: _Sharded) -> Iterator[tuple[Oversize, tuple[int, int]]]:
    """For every shard, in order: the split it belongs to and the indices of its first and last operator.

    The last shard of an operator takes the Concat with it.
    """
    index = {operator.name: position for position, operator in enumerate(sharded.graph.operators)}
    for split in sharded.splits:
        starts = [index[shard_name(split.operator, shard, split.shards)] for shard in range(split.shards)]
        stops = [*starts[1:], index[f"{split.operator}/concat"] + 1]
        for first, stop in zip(starts, stops, strict=True):
            yield split, (first, stop - 1)


def _reasons(sharded: _Sharded, request: Request) -> Mapping[int, str]:
    """The reason of every cut that is there whatever the budget, by position."""
    wanted = _wanted_cuts(sharded, sealed_positions(sharded.graph), request)
    reasons = dict.fromkeys(wanted, {"pooling": "optional", "layers": "layer"}.get(request.split, ""))
    for split, (first, last) in _shard_spans(sharded):
        reasons |= dict.fromkeys((first, last + 1), f"{split.reason}: {split.shards} shards")
    return reasons


def _does_not_fit(model: Model, whole: tuple[Graph, Costs], sharded: _Sharded, request: Request) -> DoesNotFit:
    assert request.budget_bytes is not None
    smallest = smallest_budget(model, whole, request)
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


def _round_up(nbytes: int) -> int:
    return -(-nbytes // BUDGET_STEP_BYTES) * BUDGET_STEP_BYTES
