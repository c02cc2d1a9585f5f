"""Plan a model for a budget: of the candidates within it, take the one estimated to be fastest, exact ones first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hyps.passes.cost.row_reads import row_read
from hyps.passes.errors import DoesNotFit
from hyps.passes.graph import Graph, view
from hyps.passes.planning.candidates import MANY_OPERATORS, candidates, within_lower_budgets
from hyps.passes.planning.coded_splits import with_resolved_codes
from hyps.passes.planning.costed_model import CostedModel, with_lowest_peak_order, with_rows_read
from hyps.passes.planning.exits import with_resolved_exits
from hyps.passes.planning.minimum_budget import BudgetSearch, minimum_budget
from hyps.passes.planning.partitioning import cut_reasons
from hyps.passes.planning.partitions import partitions
from hyps.passes.planning.plan import CandidateSummary, Plan, check_plan
from hyps.passes.planning.request import Request
from hyps.passes.planning.sharded_model import required_splits
from hyps.passes.planning.stock import stock_plan
from hyps.passes.rewrite import Change
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.weights import Model
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import ActivationsRecord
from hyps.runtime.units import megabytes_down, megabytes_up

#: Tiles are tried for partitions up to this multiple of the smallest budget that works without them.
_TIGHT_FACTOR = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """A plan with the rewritten model that it belongs to, and the candidates it was chosen from.

    ``splits`` are those of the model. `hyps.passes.planning.coded_plan` adds the ``codes`` and their parity shards.
    ``exits`` are the outputs at which an inference may end, and ``exit_rates`` the parts of all inferences that do.
    """

    model: Model
    graph: Graph
    plan: Plan
    candidates: tuple[CandidateSummary, ...] = ()
    splits: tuple[ShardSpec, ...] = ()
    codes: tuple[CodeRecord, ...] = ()
    exits: tuple[str, ...] = ()
    exit_rates: tuple[float, ...] = ()


def planning_stages(model: Model) -> int:
    """Return about how many stages `plan` has; each takes about equally long."""
    return 4 if len(model.proto.graph.node) > MANY_OPERATORS else 8


def plan(model: Model, request: Request, advance: Callable[[int], None] = lambda count: None) -> PlannedModel:
    """Plan a model whose shapes are known; ``advance`` is called with 1 after each of the `planning_stages`.

    Raises `DoesNotFit`, with the operator and the smallest budget that works, when no plan keeps within the budget, and
    `UnknownExit` for exits that the model does not have.
    """
    if request.exits or request.exit_rates:
        request = with_resolved_exits(view(model), request)
    whole = with_lowest_peak_order(model, request)
    request = with_resolved_codes(whole, request)
    advance(1)
    reading = with_rows_read(whole, request)
    lowest = BudgetSearch(reading, request)
    search = BudgetSearch(whole, request) if reading is not whole and _fits(whole, request) else lowest
    smallest = search.minimum(tiles=False)
    advance(1)
    found = [*candidates(search, request, tiles=False, advance=advance)]
    if request.budget_bytes is not None and not any(each.is_whole for each in found):
        limit, smallest = _TIGHT_FACTOR * smallest, search.minimum(tiles=True)
        found += candidates(search, request, tiles=True, limit_bytes=limit, advance=advance)
    if not found:
        raise _does_not_fit(search, request, smallest)
    found += within_lower_budgets(found, request)
    best = min(found, key=lambda candidate: candidate.rank)
    lowest_bytes = lowest.minimum(tiles=True)
    if (stock := stock_plan(whole, request, lowest_bytes)) is not None:
        return PlannedModel(model=whole.model, graph=whole.graph, plan=stock, candidates=())
    graph = best.sharded.costed.graph
    result = Plan(
        partitions=partitions(
            graph,
            best.partitioning.segments,
            best.residency_plan.residency.steps,
            cut_reasons(best.sharded, request),
            request.start_bytes,
            ["arena" if inside else "lean" for inside in best.way.in_arena],
        ),
        changes=(*_readings(graph), *best.tiling.changes, *best.sharded.changes),
        budget_bytes=best.budget_bytes,
        threads=request.threads,
        whole_peak_bytes=max(request.start_bytes, int(whole.costs.peaks_from(0)[-1])),
        smallest_budget_bytes=lowest_bytes,
        latency_s=best.latency_s,
        storage_latency_s=best.storage_s,
        huge_pages=best.residency_plan.residency.huge_pages,
        inexact_reason=best.inexact_reason,
        activations=ActivationsRecord(region_bytes=best.way.region_bytes) if best.way.region_bytes else None,
    )
    check_plan(graph, result)
    summaries = tuple(candidate.summary(best) for candidate in found)
    return PlannedModel(
        model=best.sharded.costed.model,
        graph=graph,
        plan=result,
        candidates=summaries,
        splits=best.sharded.splits,
        exits=request.exits,
        exit_rates=request.exit_rates,
    )


def _fits(whole: CostedModel, request: Request) -> bool:
    """Return whether a model keeps within the budget as one partition; then tables stay in memory."""
    (segment,) = whole.segments.between(())
    return request.budget_bytes is None or segment.alone_bytes <= request.budget_bytes


def _readings(graph: Graph) -> Iterator[Change]:
    """Yield a change for every operator of which the runtime reads rows."""
    for operator in graph.operators:
        if (rows := row_read(graph, operator)) is not None:
            yield Change(operator=operator.name, what="read by rows", why=f"its step {rows}, which is never held whole")


def _does_not_fit(search: BudgetSearch, request: Request, smallest: int) -> DoesNotFit:
    """Return the refusal of a budget: it names the operator that needs most after the splits that the budget requires."""
    assert request.budget_bytes is not None
    remedy = f"the smallest budget that works is {megabytes_up(smallest)}"
    if (freest := _freest_minimum(search.whole.model, request)) < smallest:
        remedy = f"without options for splitting {megabytes_up(freest)} would do; with them {remedy}"
    remedy += _with_less(request)
    if request.budget_bytes < request.start_bytes:
        libraries = "onnxruntime" if request.device.interface == "c" else "numpy, onnxruntime"
        return DoesNotFit(
            f"the runtime itself (Python, {libraries}) needs {megabytes_up(request.start_bytes)} to start, the "
            f"budget is {megabytes_down(request.budget_bytes)}; {remedy}",
            operator=None,
            needed_bytes=request.start_bytes,
            smallest_budget_bytes=smallest,
        )
    costed = search.sharded.get(search.whole, required_splits(search.whole, request)).costed
    needs = costed.costs.alone()
    worst = int(needs.argmax())
    needed, operator = int(needs[worst]), costed.graph.operators[worst]
    what = f"{operator.op_type} {operator.name!r}"
    budget = megabytes_down(request.budget_bytes)
    # in tiles, in smaller shards or next to others it may need less than alone: then its need would contradict the smallest
    problem = (
        f"{what} alone needs {megabytes_up(needed)}, the budget is {budget}"
        if request.budget_bytes < needed <= smallest
        else f"no plan fits {what} with its inputs and outputs into {budget}"
    )
    return DoesNotFit(
        f"{problem}; {remedy}",
        operator=operator.name,
        needed_bytes=min(needed, smallest),
        smallest_budget_bytes=smallest,
    )


def _freest_minimum(model: Model, request: Request) -> float:
    """Return the smallest budget without the user's options for splitting; infinity where there are none."""
    free = replace(request, split="auto", policy="auto", tile="auto", max_params=None, shards=(), codes=(), tolerate=0)
    return minimum_budget(model, free) if free != request else math.inf


def _with_less(request: Request) -> str:
    """Return how much less onnxruntime's C interface would take, if the runtime might use it."""
    if not request.images or request.device.interface == "c":
        return ""
    less = replace(request, device=request.device.with_interface("c"))
    saved = megabytes_down(request.start_bytes - less.start_bytes)
    return f", and about {saved} less with --interface c, for pictures by hyps-run alone"
