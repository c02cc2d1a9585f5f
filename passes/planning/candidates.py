"""Generate the plans worth comparing for a budget: smaller partitions leave room for weights that stay in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from hyps.passes.cost.residency import MANY_STEPS, ResidencyPlan
from hyps.passes.device import DeviceRates
from hyps.passes.planning.activation_ways import ActivationWay, activation_ways, fastest_way
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.minimum_budget import BudgetSearch
from hyps.passes.planning.partitioning import Partitioning, best_partitioning
from hyps.passes.planning.plan import CandidateSummary
from hyps.passes.planning.request import Request
from hyps.passes.planning.sharded_model import ShardedModel, required_splits
from hyps.passes.planning.tiling_search import Tiling
from hyps.passes.sharding.exactness import inexact_reason

#: A model with more operators than this gets only a few caps.
MANY_OPERATORS = 2_000
#: Caps to try for partitions are the smallest budget, multiples of what it leaves to the network, and the whole model's
#: peak. The factor between two caps is larger for models with more operators.
CAP_FACTORS = ((800, 1.5), (MANY_OPERATORS, 3.0), (math.inf, 12.0))
#: Caps to try for one product, as shares of what a partition may need besides the process.
PRODUCT_SHARES = (1.0, 0.5)
#: Of a budget's plans, this many are tried with lower budgets, too: the next whole megabytes, and the steps of a scale of as
#: many to an octave as given, down to that part of the budget. Plans of more steps are not.
TRIED_WITH_LOWER, LOWER_MEGABYTES, LOWER_IN_OCTAVE, LOWEST_PART = 3, 8, 16, 2 / 3
#: A tiled plan must take less than this share of an untiled plan's estimated time: not all costs of tiles are estimated.
_TILED_TIME_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that keeps within the budget: its tiles, splits and cuts, and what stays in memory.

    ``way`` is the one of its ``ways`` to hold activations.
    """

    tiling: Tiling
    sharded: ShardedModel
    partitioning: Partitioning
    budget_bytes: int
    ways: tuple[ActivationWay, ...]
    residency_plan: ResidencyPlan
    way: ActivationWay
    start_bytes: int
    inexact_reason: str | None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The lower the better: exactness first, then time, then what reading costs."""
        return self.inexact_reason is not None, self.latency_s, self.residency_plan.rank[1]

    @property
    def latency_s(self) -> float:
        """The estimated seconds of an inference that follows another."""
        return self._raised(self.residency_plan.latency_s)

    @property
    def storage_s(self) -> float:
        """The same where every weight that is read comes from storage, not from the system's cache."""
        return self._raised(self.residency_plan.storage_s)

    @property
    def is_whole(self) -> bool:
        """Whether the model is one partition whose weights and activations all stay in memory: no other plan is faster."""
        steps = self.residency_plan.residency.steps
        all_pinned = len(steps) == 1 and steps[0].pinned_bytes == self.ways[0].needs[0].memory.weights_bytes
        is_last = self.way is self.ways[-1]
        return all_pinned and is_last and steps[0].session_stays_open and not self.tiling.changes

    def within(self, budget_bytes: int, device: DeviceRates) -> Candidate:
        """Return the same partitions with what stays in memory within another budget."""
        residency_plan, way = fastest_way(self.ways, budget_bytes, device)
        return replace(self, residency_plan=residency_plan, way=way)

    def _raised(self, seconds: float) -> float:
        return seconds / (_TILED_TIME_SHARE if self.tiling.changes else 1)

    def summary(self, best: Candidate) -> CandidateSummary:
        """Return what this plan needs, and why ``best`` was taken instead."""
        return CandidateSummary(
            partitions=len(self.partitioning.segments),
            changes=len(self.tiling.changes) + len(self.sharded.changes),
            peak_bytes=max(self.start_bytes, *(step.peak_bytes for step in self.residency_plan.residency.steps)),
            latency_s=self.latency_s,
            refused=self._refusal(best),
        )

    def _refusal(self, best: Candidate) -> str:
        if self is best:
            return ""
        if self.rank == best.rank:
            return "no better"
        less_exact = self.inexact_reason is not None and best.inexact_reason is None
        return f"inexact, {self.inexact_reason}" if less_exact else "slower"


#: A sharded model and its cuts.
_Partitions = tuple[CostedModel, tuple[int, ...]]


def candidates(
    search: BudgetSearch, request: Request, *, tiles: bool, limit_bytes: float = math.inf, advance: Callable[[int], None]
) -> Iterator[Candidate]:
    """Yield plans within the budget, first the one with the largest partitions; yield none if the budget is too small.

    Partitions are kept within caps of at most ``limit_bytes``. The caps do not depend on the budget: a plan that is found
    for one budget is found for any larger one, too. If the first plan is exact, all others use exact splits only. If none is
    exact, partitions as large as the budget are tried as well.
    ``advance`` is called with 1 for each cap.
    """
    budget = request.budget_bytes
    if budget is None:
        yield from _capped_candidates(search, request, request, tiles=tiles, exact=False, known=set())
        return
    allowed = [cap for cap in _caps(search, tiles=tiles) if cap <= min(budget, limit_bytes)]
    exact_bytes, has_exact = 0, False
    known: set[_Partitions] = set()
    for cap in reversed(allowed):
        is_first = cap == allowed[-1]
        if cap < exact_bytes or (tiles and not is_first and not search.tiling(cap, tiles=True).changes):
            continue
        capped = replace(request, budget_bytes=cap)
        for candidate in _capped_candidates(search, request, capped, tiles=tiles, exact=exact_bytes > 0, known=known):
            yield candidate
            has_exact |= candidate.inexact_reason is None
            if candidate.is_whole:
                return
            if is_first and candidate.inexact_reason is None and not exact_bytes:
                exact_bytes = min(search.minimum(tiles=tiles, exact=True), cap)
        advance(1)
    if not has_exact and allowed and allowed[-1] < min(budget, limit_bytes):
        largest = replace(request, budget_bytes=int(min(budget, limit_bytes)))
        yield from _capped_candidates(search, request, largest, tiles=tiles, exact=False, known=known)


def _caps(search: BudgetSearch, *, tiles: bool) -> list[int]:
    """Return the caps to try for partitions, the lowest first."""
    count = len(search.whole.graph.operators)
    factor = next(factor for most, factor in CAP_FACTORS if count <= most)
    process = search.whole.costs.process_bytes
    (whole,) = search.whole.segments.between(())
    caps = [search.minimum(tiles=tiles)]
    while (cap := process + int((caps[-1] - process) * factor)) < whole.alone_bytes:
        caps.append(cap)
    return [*caps, whole.alone_bytes] if whole.alone_bytes > caps[-1] else caps


def _capped_candidates(
    search: BudgetSearch, request: Request, capped: Request, *, tiles: bool, exact: bool, known: set[_Partitions]
) -> Iterator[Candidate]:
    """Yield the plans whose partitions keep within the budget of ``capped``, splitting products ever finer.

    ``known`` are the partitions of plans that were yielded before; none is yielded again.
    """
    cap, process = capped.budget_bytes, request.process_bytes
    tiling = search.tiling(cap or 0, tiles=tiles)
    tried = set()
    for share in PRODUCT_SHARES if cap is not None else PRODUCT_SHARES[:1]:
        product_bytes = process + int((cap - process) * share) if cap is not None and share < 1 else None
        splits = required_splits(
            tiling.costed, capped, exact=exact, product_bytes=product_bytes, given_bytes=request.budget_bytes
        )
        if splits in tried:
            continue
        tried.add(splits)
        sharded = search.sharded.get(tiling.costed, splits)
        best = best_partitioning(sharded, capped, apart=product_bytes is not None)
        if best is not None and (partitions := (sharded.costed, best.cuts)) not in known:
            known.add(partitions)
            yield _candidate(tiling, sharded, best, request)


def within_lower_budgets(found: Iterable[Candidate], request: Request) -> Iterator[Candidate]:
    """Yield the fastest of ``found`` with what stays in memory within lower budgets: what is valid there is valid here.

    A search for one budget may miss what the search for a lower one finds.
    """
    fastest = sorted(found, key=lambda each: each.rank)[:TRIED_WITH_LOWER]
    for each in fastest if request.budget_bytes is not None else ():
        if len(each.partitioning.segments) <= MANY_STEPS and not each.is_whole:
            for lower in _lower_budgets(request.budget_bytes or 0):
                if lower >= each.ways[0].alone_bytes:
                    yield each.within(lower, request.device)


def _lower_budgets(budget_bytes: int) -> Iterator[int]:
    """Yield the whole megabytes next below, and the steps of a scale: powers of two, each octave in equal parts."""
    whole = -(-budget_bytes // 1_000_000) * 1_000_000
    yield from range(whole - 1_000_000, whole - (LOWER_MEGABYTES + 1) * 1_000_000, -1_000_000)
    unit = 64_000_000
    while unit > budget_bytes:
        unit //= 2
    while unit * 2 < budget_bytes:
        unit *= 2
    for octave in (unit // 2, unit):
        for part in range(LOWER_IN_OCTAVE):
            lower = octave + octave * part // LOWER_IN_OCTAVE
            if LOWEST_PART * budget_bytes <= lower < budget_bytes:
                yield lower


def _candidate(tiling: Tiling, sharded: ShardedModel, partitioning: Partitioning, request: Request) -> Candidate:
    budget = request.budget_bytes
    if budget is None:
        budget = max(partitioning.peak_bytes, request.start_bytes)
    graph = sharded.costed.graph
    ways = tuple(activation_ways(sharded.costed, partitioning, request, budget))
    residency_plan, way = fastest_way(ways, budget, request.device)
    return Candidate(
        tiling=tiling,
        sharded=sharded,
        partitioning=partitioning,
        budget_bytes=budget,
        ways=ways,
        residency_plan=residency_plan,
        way=way,
        start_bytes=request.start_bytes,
        inexact_reason=inexact_reason(tiling.costed.shard_options, sharded.splits, graph, partitioning.cuts),
    )
