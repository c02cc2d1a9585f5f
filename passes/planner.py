"""From a model and a budget to a plan: shard what does not fit, then choose the cuts, then say why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hyps.passes.costs import PROCESS_BYTES, Costs, costs
from hyps.passes.cuts import best_cuts, smallest_peak
from hyps.passes.device import Device
from hyps.passes.errors import DoesNotFit
from hyps.passes.exactness import inexact_reason
from hyps.passes.footprint import SESSION_BYTES, file_bytes, footprints
from hyps.passes.fusion import sealed_positions
from hyps.passes.graph import Graph, view
from hyps.passes.latency import latency
from hyps.passes.oversize import Oversize, Threshold, finest, oversize
from hyps.passes.partitions import partitions
from hyps.passes.plan import Partition, Plan, check_plan
from hyps.passes.reach import first_that, fits
from hyps.passes.residency import StepNeeds, residences
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.shard import ShardByOutput, shard_name
from hyps.passes.units import megabytes
from hyps.passes.wanted import layer_cuts, mandatory_cuts, pooling_cuts
from hyps.passes.weights import REFERENCE_BYTES, Model
from hyps.passes.work import Seconds

Split = Literal["auto", "mandatory", "pooling", "layers"]

#: Budgets are proposed to users in steps of this many bytes.
BUDGET_STEP_BYTES = 100_000
_UNBOUNDED = 1 << 62
#: Of what the budget has above the least that works, the shares that partitions are tried with; the rest is for weights.
_CAP_SHARES = (0.0, 0.1, 0.3, 0.6, 1.0)
#: Of what a partition may need beside the process, the shares that an operator is tried to be split to.
_SHARD_SHARES = (1.0, 0.5, 0.25)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """A way to cut, with what stays in memory within the budget and the estimated seconds of an inference."""

    sharded: _Sharded
    cuts: tuple[int, ...]
    partitions: tuple[Partition, ...]
    budget_bytes: int
    latency_s: float
    cost_s: float


def plan(model: Model, request: Request) -> Planned:
    """Plan a model whose shapes are known.

    Raises `DoesNotFit`, with the operator and the smallest budget that works, when no plan keeps within the budget.
    """
    whole = _measured(model, request.threads)
    smallest = _smallest_budget(whole, request)
    found = _cut(whole, request)
    if found is None:
        raise _does_not_fit(whole, _shard(whole, request).measured, request, smallest)
    best = min(_candidates(whole, request, found, smallest), key=lambda candidate: candidate.cost_s)
    sharded = best.sharded
    graph = sharded.measured.graph
    result = Plan(
        partitions=best.partitions,
        changes=sharded.rewritten.changes,
        budget_bytes=best.budget_bytes,
        threads=request.threads,
        whole_peak_bytes=int(whole.costs.peaks_from(0)[-1]),
        smallest_budget_bytes=smallest,
        latency_s=best.latency_s,
        inexact_reason=inexact_reason(whole.model, whole.graph, sharded.splits, graph, best.cuts, request.threads),
    )
    check_plan(graph, result)
    return Planned(model=sharded.measured.model, graph=graph, plan=result)


def _candidates(whole: _Measured, request: Request, found: _Cut, smallest: int) -> Iterator[_Cut]:
    """Plans that need less than the budget allows leave the rest to weights that stay: which share is best is tried."""
    yield found
    budget = request.budget_bytes
    if budget is None or request.split != "auto" or len(found.cuts) == 0:
        return
    for cap_share, shard_share in itertools.product(_CAP_SHARES, _SHARD_SHARES):
        cap = smallest + int((budget - smallest) * cap_share)
        shard = PROCESS_BYTES + int((cap - PROCESS_BYTES) * shard_share)
        if (other := _cut(whole, request, cap, shard)) is not None:
            yield other


def _cut(whole: _Measured, request: Request, cap_bytes: int | None = None, shard_bytes: int | None = None) -> _Cut | None:
    """The best cuts, and what stays in memory; partitions need at most ``cap_bytes`` each, shards ``shard_bytes``.

    Both are the budget by default.
    """
    capped = replace(request, budget_bytes=cap_bytes or request.budget_bytes)
    sharded = _shard(whole, replace(capped, budget_bytes=shard_bytes or capped.budget_bytes))
    graph, costs, sealed = sharded.measured.graph, sharded.measured.costs, sharded.measured.sealed
    times = latency(graph, costs, request.device)
    limit = capped.budget_bytes if capped.budget_bytes is not None else _UNBOUNDED
    wanted = _wanted_cuts(sharded, capped)
    if shard_bytes is not None and shard_bytes < limit:  # smaller shards than need be: not to be joined again
        wanted |= _mandatory_cuts(sharded)
    cuts = best_cuts(costs, times, sealed, wanted, limit)
    if cuts is None:
        return None
    parts = partitions(graph, costs, cuts, _reasons(sharded, capped))
    budget = request.budget_bytes if request.budget_bytes is not None else max(part.peak_bytes for part in parts)
    resident = residences(_needs(graph, parts, times.computed_s), budget, request.device)
    return _Cut(
        sharded=sharded,
        cuts=cuts,
        partitions=tuple(
            replace(
                part,
                peak_bytes=stays.peak_bytes,
                pinned_bytes=stays.pinned_bytes,
                ahead_bytes=stays.ahead_bytes,
                kept=stays.kept,
            )
            for part, stays in zip(parts, resident.steps, strict=True)
        ),
        budget_bytes=budget,
        latency_s=resident.latency_s,
        cost_s=resident.cost_s,
    )


def _needs(graph: Graph, parts: Sequence[Partition], computed_s: Seconds) -> Iterator[StepNeeds]:
    operators = {operator.name: operator for operator in graph.operators}
    stop = 0
    for part in parts:
        start, stop = stop, stop + len(part.operators)
        names = {name for operator in part.operators for name in operators[operator].weights}
        sizes = [graph.weights[name].nbytes for name in names]
        weights = sum(file_bytes(size) for size in sizes if size >= REFERENCE_BYTES)
        yield StepNeeds(
            alone_bytes=part.alone_bytes,
            weights_bytes=weights,
            session_bytes=SESSION_BYTES + part.weight_bytes - weights,
            compute_s=float(computed_s[stop] - computed_s[start]),
        )


def _smallest_budget(whole: _Measured, request: Request) -> int:
    """The least budget, in steps of `BUDGET_STEP_BYTES`, that a plan as requested keeps within; found by trying.

    Starts at a bound that no plan can beat: every splittable operator in its smallest shards.
    """

    def works(steps: int) -> bool:
        wanted = replace(request, budget_bytes=steps * BUDGET_STEP_BYTES)
        sharded = _shard(whole, wanted)
        return fits(sharded.measured.costs, tuple(sorted(_wanted_cuts(sharded, wanted))), steps * BUDGET_STEP_BYTES)

    bound = smallest_peak(finest(whole.model, whole.graph, whole.costs), step_bytes=BUDGET_STEP_BYTES)
    return first_that(works, bound // BUDGET_STEP_BYTES) * BUDGET_STEP_BYTES


def _measured(model: Model, threads: int) -> _Measured:
    graph = view(model)
    found = costs(graph, footprints(graph, threads))
    return _Measured(model=model, graph=graph, costs=found, sealed=sealed_positions(graph))


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
    mandatory = _mandatory_cuts(sharded)
    if request.split == "layers":
        return mandatory.union(layer_cuts(count, sealed))
    if request.split == "pooling":
        return mandatory.union(pooling_cuts(graph, sealed))
    return frozenset() if request.split == "auto" and request.budget_bytes is not None else mandatory


def _mandatory_cuts(sharded: _Sharded) -> frozenset[int]:
    spans = [span for _, span in _shard_spans(sharded)]
    return frozenset(mandatory_cuts(spans, len(sharded.measured.graph.operators)))


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


def _does_not_fit(whole: _Measured, sharded: _Measured, request: Request, smallest: int) -> DoesNotFit:
    assert request.budget_bytes is not None
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
