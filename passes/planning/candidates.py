"""Generate the plans worth comparing for a budget: smaller partitions leave room for weights that stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hyps.passes.cost.footprint import SESSION_BYTES, file_bytes, is_in_file
from hyps.passes.cost.residency import ResidencyPlan, StepNeeds, plan_residency
from hyps.passes.cost.shared_session import shared_session_key
from hyps.passes.cost.tiers import arena_region_bytes, can_use_arena, fresh_pages_s
from hyps.passes.graph import Graph
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.minimum_budget import BudgetSearch
from hyps.passes.planning.partitioning import Partitioning, best_partitioning
from hyps.passes.planning.plan import CandidateSummary
from hyps.passes.planning.request import Request
from hyps.passes.planning.sharded_model import ShardedModel, required_splits
from hyps.passes.planning.tiling_search import Tiling
from hyps.passes.sharding.exactness import inexact_reason
from hyps.runtime.bundle.residency import StepMemory

#: Caps to try for partitions, as shares of the budget above the smallest one that works; weights get the rest.
CAP_SHARES = (0.0, 0.1, 0.4)
#: Caps to try for one product, as shares of what a partition may need besides the process.
PRODUCT_SHARES = (1.0, 0.5)
#: A model with more operators than this gets only the first cap.
MANY_OPERATORS = 2_000
#: A tiled plan must take less than this share of an untiled plan's estimated time: not all costs of tiles are estimated.
_TILED_TIME_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that keeps within the budget: its tiles, splits and cuts, and what stays in memory.

    ``region_bytes`` is the size of the arena of its activations, which are in fresh pages where it is None.
    """

    tiling: Tiling
    sharded: ShardedModel
    partitioning: Partitioning
    budget_bytes: int
    residency_plan: ResidencyPlan
    region_bytes: int | None
    start_bytes: int
    inexact_reason: str | None

    @property
    def rank(self) -> tuple[bool, float]:
        """The lower the better: exactness first, then time."""
        return self.inexact_reason is not None, self.compared_s

    @property
    def compared_s(self) -> float:
        """The cost by which plans are compared."""
        return self.residency_plan.cost / (_TILED_TIME_SHARE if self.tiling.changes else 1)

    def summary(self, best: Candidate) -> CandidateSummary:
        """Return what this plan needs, and why ``best`` was taken instead."""
        return CandidateSummary(
            partitions=len(self.partitioning.segments),
            changes=len(self.tiling.changes) + len(self.sharded.changes),
            peak_bytes=max(self.start_bytes, *(step.peak_bytes for step in self.residency_plan.residency.steps)),
            latency_s=self.residency_plan.latency_s,
            compared_s=self.compared_s,
            refused=self._refusal(best),
        )

    def _refusal(self, best: Candidate) -> str:
        if self is best:
            return ""
        if self.rank == best.rank:
            return "no better"
        less_exact = self.inexact_reason is not None and best.inexact_reason is None
        return f"inexact, {self.inexact_reason}" if less_exact else "slower"


def candidates(
    search: BudgetSearch, request: Request, *, tiles: bool, advance: Callable[[int], None]
) -> Iterator[Candidate]:
    """Yield plans within the budget, first the one that may use all of it; yield none if the budget is too small.

    If the first plan is exact, all others use exact splits only. ``advance`` is called with 1 for each candidate, and
    after the search for the smallest exact budget.
    """
    budget = request.budget_bytes
    if budget is not None and budget < search.minimum(tiles=tiles):
        return
    tiling = search.tiling(budget or 0, tiles=tiles)
    sharded = search.sharded.get(tiling.costed, required_splits(tiling.costed, request))
    best = best_partitioning(sharded, request)
    first = _candidate(tiling, sharded, best, request) if best is not None else None
    if first is not None:
        advance(1)
        yield first
    if budget is None or request.split != "auto" or (best is not None and not best.cuts):
        return
    exact = first is not None and first.inexact_reason is None
    lowest = search.minimum(tiles=tiles)
    if exact:
        lowest = min(search.minimum(tiles=tiles, exact=True), budget)
        advance(1)
    shares = CAP_SHARES if len(tiling.costed.graph.operators) <= MANY_OPERATORS else CAP_SHARES[:1]
    for share in shares:
        capped = replace(request, budget_bytes=lowest + int((budget - lowest) * share))
        for candidate in _capped_candidates(search, request, capped, tiles=tiles, exact=exact):
            advance(1)
            yield candidate


def _capped_candidates(
    search: BudgetSearch, request: Request, capped: Request, *, tiles: bool, exact: bool
) -> Iterator[Candidate]:
    """Yield the plans whose partitions keep within the budget of ``capped``, splitting products ever finer."""
    cap, process = capped.budget_bytes, request.process_bytes
    assert cap is not None
    tiling = search.tiling(cap, tiles=tiles)
    tried = set()
    for product_bytes in (process + int((cap - process) * share) for share in PRODUCT_SHARES):
        splits = required_splits(
            tiling.costed, capped, exact=exact, product_bytes=product_bytes, given_bytes=request.budget_bytes
        )
        if splits in tried:
            continue
        tried.add(splits)
        sharded = search.sharded.get(tiling.costed, splits)
        if (best := best_partitioning(sharded, capped, apart=product_bytes < cap)) is not None:
            yield _candidate(tiling, sharded, best, request)


def _candidate(tiling: Tiling, sharded: ShardedModel, partitioning: Partitioning, request: Request) -> Candidate:
    budget = request.budget_bytes
    if budget is None:
        budget = max(partitioning.peak_bytes, request.start_bytes)
    graph = sharded.costed.graph
    needs = tuple(_step_needs(graph, partitioning, request.device.memory_bytes_per_s))
    residency_plan, region_bytes = _fastest_residency(sharded.costed, partitioning, needs, budget, request)
    return Candidate(
        tiling=tiling,
        sharded=sharded,
        partitioning=partitioning,
        budget_bytes=budget,
        residency_plan=residency_plan,
        region_bytes=region_bytes,
        start_bytes=request.start_bytes,
        inexact_reason=inexact_reason(tiling.costed.shard_options, sharded.splits, graph, partitioning.cuts),
    )


def _fastest_residency(
    costed: CostedModel, partitioning: Partitioning, needs: Sequence[StepNeeds], budget: int, request: Request
) -> tuple[ResidencyPlan, int | None]:
    """Return what stays in memory, and the region of the arena for activations if it saves more than it displaces."""
    graph, costs, segments = costed.graph, costed.costs, partitioning.segments
    fresh_s = sum(fresh_pages_s(graph, costs, segment.operators) for segment in segments)
    lean = plan_residency(needs, budget, request.device).slower_by(fresh_s)
    most_live = max(segment.activation_bytes for segment in segments) - costs.input_bytes
    region_bytes = arena_region_bytes(most_live)
    if request.tier == "lean" or region_bytes is None or not can_use_arena(graph):
        return lean, None
    more = [region_bytes - segment.activation_bytes + costs.input_bytes for segment in segments]
    pairs = zip(needs, more, strict=True)
    grown = [
        replace(need, memory=replace(need.memory, alone_bytes=need.memory.alone_bytes + nbytes)) for need, nbytes in pairs
    ]
    if max(need.memory.alone_bytes for need in grown) > budget:
        return lean, None
    found = plan_residency(grown, budget, request.device)
    return (found, region_bytes) if found.cost < lean.cost else (lean, None)


def _step_needs(graph: Graph, partitioning: Partitioning, memory_bytes_per_s: float) -> Iterator[StepNeeds]:
    """Yield what each segment needs; its time includes copying the tensors across its end (`hyps.passes.cost.latency`)."""
    operators = [[graph.operators[index] for index in segment.operators] for segment in partitioning.segments]
    keys = [shared_session_key(graph, each) for each in operators]
    neighbours = zip([None, *keys[:-1]], [*keys[1:], None], strict=True)
    stop = 0
    for segment, own, key, adjacent in zip(partitioning.segments, operators, keys, neighbours, strict=True):
        start, stop = stop, stop + len(own)
        used = [graph.weights[name] for operator in own for name in operator.weights]
        each_once = {weight.storage or weight.name: weight for weight in used}.values()
        weights = sum(file_bytes(weight.nbytes) for weight in each_once if is_in_file(weight))
        computing = float(partitioning.computed_s[stop] - partitioning.computed_s[start])
        memory = StepMemory(
            alone_bytes=segment.alone_bytes,
            weights_bytes=weights,
            session_bytes=SESSION_BYTES + segment.weight_bytes - weights,
            shares_session=key is not None and key in adjacent,
        )
        yield StepNeeds(memory=memory, compute_s=computing + segment.leaving_bytes / memory_bytes_per_s)
