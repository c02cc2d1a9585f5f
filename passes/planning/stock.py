"""Plan a model as onnxruntime itself runs it, where the budget holds that: one step with the default options."""

from __future__ import annotations

from dataclasses import replace

from hyps.passes.cost.compute import compute_s
from hyps.passes.cost.residency import rounded_up
from hyps.passes.cost.tiers import StockMemory, stock_memory
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.partitions import Segment, partitions
from hyps.passes.planning.plan import Plan, check_plan
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.manifest import ActivationsRecord
from hyps.runtime.bundle.residency import StepResidency
from hyps.runtime.bundle.weight_arena import HUGE_SLACK_BYTES


def stock_plan(whole: CostedModel, request: Request, smallest_budget_bytes: int) -> Plan | None:
    """Return the plan of a model as one stock step; None where the budget is smaller, or the request excludes it.

    Nor is there one with compressed weights: onnxruntime reads the weights of a stock step itself.
    """
    budget, (segment,) = request.budget_bytes, whole.segments.between(())
    memory = stock_memory(whole.graph, whole.costs, segment.activation_bytes)
    is_free = request.split == request.tier == "auto" and not request.shards and request.max_params is None
    is_free = is_free and not request.device.compresses_weights
    if budget is None or memory is None or not is_free or memory.alone_bytes > budget:
        return None
    seconds = rounded_up(request.device.step_s + float(compute_s(whole.graph, request.device).sum()))
    found = Plan(
        partitions=partitions(
            whole.graph,
            [replace(segment, alone_bytes=memory.alone_bytes)],
            [_residency(memory, segment)],
            {},
            request.start_bytes,
            ["stock"],
        ),
        changes=(),
        budget_bytes=budget,
        threads=request.threads,
        whole_peak_bytes=max(request.start_bytes, int(whole.costs.peaks_from(0)[-1])),
        smallest_budget_bytes=smallest_budget_bytes,
        latency_s=seconds,
        storage_latency_s=seconds,
        huge_pages=memory.alone_bytes + HUGE_SLACK_BYTES <= budget,
        steady=False,
        inexact_reason=None,
        activations=ActivationsRecord(region_bytes=memory.region_bytes, packed_bytes=memory.packed_bytes),
    )
    check_plan(whole.graph, found)
    return found


def _residency(memory: StockMemory, segment: Segment) -> StepResidency:
    """Return that all stays in memory."""
    return StepResidency(
        pinned_bytes=segment.weight_bytes, ahead_bytes=0, session_stays_open=True, peak_bytes=memory.alone_bytes
    )
