"""Plan a model as onnxruntime itself runs it, where the budget holds that: one step with the default options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hyps.passes.cost.arena_layout import arena_events
from hyps.passes.cost.blocked_layout import filled_view
from hyps.passes.cost.compute import compute_s
from hyps.passes.cost.computed_types import HALF_FLOATS, coded_view, is_coded, widened_view
from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.residency import rounded_up
from hyps.passes.cost.session_order import session_order
from hyps.passes.cost.tiers import StockMemory, stock_memory
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.partitions import Segment, Segments, partitions
from hyps.passes.planning.plan import Plan, check_plan
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.manifest import ActivationsRecord
from hyps.runtime.bundle.pages import WIDE_CODE_BYTES
from hyps.runtime.bundle.residency import StepResidency


def stock_plan(whole: CostedModel, request: Request, smallest_budget_bytes: int) -> Plan | None:
    """Return the plan of a model as one stock step; None where the budget is smaller, or the request excludes it.

    There is none with compressed weights, as onnxruntime reads the weights of a stock step itself, nor with exits. It has no
    huge pages: with them VGG16's first inference took twice as long, and later ones 2 % less.
    """
    budget, (segment,) = request.budget_bytes, whole.segments.between(())
    is_free = request.split == request.tier == "auto" and not request.shards and request.max_params is None
    is_free = is_free and not request.device.compresses_weights and not request.has_codes and not request.exits
    memory = _memory(whole, segment, request) if budget is not None and is_free else None
    if budget is None or memory is None:
        return None
    regions = (memory.region_bytes, memory.tight_region_bytes)
    region_bytes = next((each for each in regions if memory.alone_bytes(each) <= budget), None)
    if region_bytes is None:
        return None
    alone_bytes = memory.alone_bytes(region_bytes)
    if wide_code := request.device.interface == "c" and alone_bytes + WIDE_CODE_BYTES <= budget:
        alone_bytes += WIDE_CODE_BYTES
    seconds = rounded_up(request.device.step_s + float(compute_s(whole.graph, request.device).sum()))
    found = Plan(
        partitions=partitions(
            whole.graph,
            [replace(segment, alone_bytes=alone_bytes)],
            [_residency(segment, alone_bytes)],
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
        huge_pages=False,
        wide_code=wide_code,
        inexact_reason=None,
        activations=ActivationsRecord(region_bytes=region_bytes, packed_bytes=memory.packed_bytes),
    )
    check_plan(whole.graph, found)
    return found


def _memory(whole: CostedModel, segment: Segment, request: Request) -> StockMemory | None:
    """Return what a model takes as one stock step, in the types in which onnxruntime computes it."""
    graph, found = whole.graph, whole.costs
    prints: Mapping[str, Footprint] | None = None
    if is_coded(graph):
        graph, prints = coded_view(graph, request.threads)
    elif any(weight.dtype in HALF_FLOATS for weight in graph.weights.values()):
        graph = widened_view(graph)
        prints = footprints(graph, request.threads)
    if prints is not None:
        found = costs(graph, prints, request.process_bytes)
        (segment,) = Segments(graph, found).between(())
    filled = filled_view(graph)
    order = session_order(graph, segment.operators, graph.outputs)
    events = arena_events(filled, prints or footprints(filled, request.threads), (order,))
    return stock_memory(graph, found, segment.activation_bytes, events)


def _residency(segment: Segment, alone_bytes: int) -> StepResidency:
    """Return that all stays in memory."""
    return StepResidency(pinned_bytes=segment.weight_bytes, ahead_bytes=0, session_stays_open=True, peak_bytes=alone_bytes)
