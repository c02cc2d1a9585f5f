"""From a model and a budget to a plan: of the ways to cut it, the one that leaves most room for weights that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from hyps.passes.cost.footprint import SESSION_BYTES, file_bytes
from hyps.passes.cost.residency import ResidencyPlan, StepNeeds, plan_residency
from hyps.passes.cost.shared_session import shared_session_key
from hyps.passes.errors import DoesNotFit
from hyps.passes.graph import Graph
from hyps.passes.planning.minimum_budget import minimum_exact_tiled_budget, minimum_tiled_budget, minimum_untiled_budget
from hyps.passes.planning.partitioning import CostedModel, Partitioning, Sharded, best_partitioning, ordered, shard
from hyps.passes.planning.plan import Partition, Plan, Tried, check_plan
from hyps.passes.planning.request import Request
from hyps.passes.planning.tiling_search import Tiling, TilingSearch
from hyps.passes.sharding.exactness import inexact_reason
from hyps.passes.weights import REFERENCE_BYTES, Model
from hyps.runtime.bundle.residency import StepMemory
from hyps.runtime.units import megabytes

T = TypeVar("T")

#: Of what the budget has above the least that works, the shares that partitions are tried with; the rest is for weights.
_CAP_SHARES = (0.0, 0.1, 0.4)
#: Of what a partition may need beside the process, the shares that an operator is tried to be split to.
_SHARD_SHARES = (1.0, 0.5)
#: Tiles are tried where no plan fits without them, and below so many times the least budget that works without.
_TIGHT = 1.5
#: A plan with tiles must be estimated to take less than this share of the time: what they cost besides is not estimated.
_TILES_WORTH = 0.9
#: Larger models are tried with the first of the shares alone.
_MANY_OPERATORS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with the rewritten model it belongs to, and what was tried to find it."""

    model: Model
    graph: Graph
    plan: Plan
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A way to split and cut, and what stays in memory then."""

    tiling: Tiling
    sharded: Sharded
    partitioning: Partitioning
    budget_bytes: int
    stays: ResidencyPlan
    start_bytes: int
    inexact_reason: str | None

    def rank(self) -> tuple[bool, float]:
        """The less the better: bits first, then time."""
        return self.inexact_reason is not None, self.stays.cost / (_TILES_WORTH if self.tiling.changes else 1)

    def tried(self, best: _Candidate) -> Tried:
        """What is told of it beside the ``best``."""
        refused = ""
        if self is not best:
            less_exact = self.inexact_reason is not None and best.inexact_reason is None
            refused = f"inexact, {self.inexact_reason}" if less_exact else "slower"
            refused = "no better" if self.rank() == best.rank() else refused
        return Tried(
            partitions=len(self.partitioning.partitions),
            changes=len(self.tiling.changes) + len(self.sharded.changes),
            peak_bytes=max(part.peak_bytes for part in self.partitions()),
            latency_s=self.stays.latency_s,
            compared_s=self.rank()[1],
            refused=refused,
        )

    def partitions(self) -> Iterator[Partition]:
        """The partitions with what stays in memory; no step needs less than the process did to start."""
        for part, stays in zip(self.partitioning.partitions, self.stays.residency.steps, strict=True):
            yield replace(
                part,
                peak_bytes=max(stays.peak_bytes, self.start_bytes),
                pinned_bytes=stays.pinned_bytes,
                ahead_bytes=stays.ahead_bytes,
                kept=stays.session_stays_open,
            )


def milestones(model: Model) -> int:
    """About how many times `plan` tells that it has come further: the parts between take about equally long."""
    return 5 if len(model.proto.graph.node) > _MANY_OPERATORS else 4 + len(_CAP_SHARES) * len(_SHARD_SHARES)


def plan(model: Model, request: Request, advance: Callable[[int], None] = lambda count: None) -> Planned:
    """Plan a model whose shapes are known; ``advance`` is told of `milestones`.

    Raises `DoesNotFit`, with the operator and the smallest budget that works, when no plan keeps within the budget.
    """

    def passed(found: T) -> T:
        advance(1)
        return found

    whole = passed(ordered(model, request))
    tilings = TilingSearch(whole, request)
    sharded = shard(whole, request)
    smallest = least = passed(minimum_untiled_budget(whole, request))
    exact = partial(minimum_untiled_budget, whole, request, exact=True)
    candidates = [*map(passed, _candidates(lambda cap: tilings.whole, request, least, lambda: passed(exact())))]
    if not candidates or (request.budget_bytes or 0) < _TIGHT * least:
        smallest = minimum_tiled_budget(tilings, request, least)
        exact = partial(minimum_exact_tiled_budget, tilings, request, smallest, least)
        candidates += map(passed, _candidates(tilings.within, request, smallest, exact))
    best = min(candidates, key=_Candidate.rank, default=None)
    if best is None:
        raise _does_not_fit(sharded.costed, request, smallest)
    graph = best.sharded.costed.graph
    result = Plan(
        partitions=tuple(best.partitions()),
        changes=(*best.tiling.changes, *best.sharded.changes),
        budget_bytes=best.budget_bytes,
        threads=request.threads,
        whole_peak_bytes=max(request.start_bytes, int(whole.costs.peaks_from(0)[-1])),
        smallest_budget_bytes=smallest,
        latency_s=best.stays.latency_s,
        huge_pages=best.stays.residency.huge_pages,
        steady=best.stays.residency.steady,
        inexact_reason=best.inexact_reason,
    )
    check_plan(graph, result)
    tried = tuple(candidate.tried(best) for candidate in candidates)
    return Planned(model=best.sharded.costed.model, graph=graph, plan=result, tried=tried)


def _candidates(
    tiled: Callable[[int], Tiling], request: Request, smallest: int, smallest_exact: Callable[[], int]
) -> Iterator[_Candidate]:
    """Plans within the budget. Those that need less of it leave room to weights that stay: which is best is tried.

    ``tiled`` gives the model as it is planned within so many bytes; that works from ``smallest`` on, and without that a
    bit changes from ``smallest_exact`` on.
    """
    budget = request.budget_bytes
    if budget is not None and budget < smallest:
        return
    tiling = tiled(budget or 0)
    found = best_partitioning(sharded := shard(tiling.costed, request), request)
    first = _candidate(tiling, sharded, found, request) if found is not None else None
    if first is not None:
        yield first
    if budget is None or request.split != "auto" or (found is not None and not found.cuts):
        return
    exact = first is not None and first.inexact_reason is None
    smallest = min(smallest_exact(), budget) if exact else smallest
    shares = _CAP_SHARES if len(tiling.costed.graph.operators) <= _MANY_OPERATORS else _CAP_SHARES[:1]
    process = request.process_bytes
    for cap in (smallest + int((budget - smallest) * share) for share in shares):
        tiling, capped = tiled(cap), replace(request, budget_bytes=cap)
        tried = set()
        for product_bytes in (process + int((cap - process) * share) for share in _SHARD_SHARES):
            other = shard(tiling.costed, capped, exact=exact, product_bytes=product_bytes, given_bytes=budget)
            if other.splits in tried:
                continue
            tried.add(other.splits)
            if (found := best_partitioning(other, capped, apart=product_bytes < cap)) is not None:
                yield _candidate(tiling, other, found, request)


def _candidate(tiling: Tiling, sharded: Sharded, found: Partitioning, request: Request) -> _Candidate:
    peak = max(part.peak_bytes for part in found.partitions)
    budget = request.budget_bytes if request.budget_bytes is not None else max(peak, request.start_bytes)
    needs = _needs(sharded.costed.graph, found, request.device.memory_bytes_per_s)
    stays = plan_residency(needs, budget, request.device)
    graph = sharded.costed.graph
    return _Candidate(
        tiling=tiling,
        sharded=sharded,
        partitioning=found,
        budget_bytes=budget,
        stays=stays,
        start_bytes=request.start_bytes,
        inexact_reason=inexact_reason(tiling.costed.shard_options, sharded.splits, graph, found.cuts),
    )


def _needs(graph: Graph, found: Partitioning, memory_bytes_per_s: float) -> Iterator[StepNeeds]:
    """What each partition needs; what crosses its end takes time, too, as `hyps.passes.cost.latency` has it."""
    operators = {operator.name: operator for operator in graph.operators}
    looks = [shared_session_key(graph, [operators[name] for name in part.operators]) for part in found.partitions]
    stop = 0
    for part, before, look, after in zip(found.partitions, [None, *looks], looks, [*looks[1:], None], strict=False):
        start, stop = stop, stop + len(part.operators)
        names = {name for operator in part.operators for name in operators[operator].weights}
        sizes = [graph.weights[name].nbytes for name in names]
        weights = sum(file_bytes(size) for size in sizes if size >= REFERENCE_BYTES)
        memory = StepMemory(
            alone_bytes=part.alone_bytes,
            weights_bytes=weights,
            session_bytes=SESSION_BYTES + part.weight_bytes - weights,
            shares_session=look is not None and look in (before, after),
        )
        compute_s = float(found.computed_s[stop] - found.computed_s[start]) + part.leaving_bytes / memory_bytes_per_s
        yield StepNeeds(memory=memory, compute_s=compute_s)


def _does_not_fit(sharded: CostedModel, request: Request, smallest: int) -> DoesNotFit:
    assert request.budget_bytes is not None
    if request.budget_bytes < request.start_bytes:
        raise DoesNotFit(
            f"the runtime itself (Python, numpy, onnxruntime) needs {megabytes(request.start_bytes)} to start, the budget "
            f"is {megabytes(request.budget_bytes)}; the smallest budget that works is {megabytes(smallest)}",
            operator=None,
            needed_bytes=request.start_bytes,
            smallest_budget_bytes=smallest,
        )
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
