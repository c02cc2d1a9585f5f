"""Hold activations in fresh pages, in an arena for some steps, or in one for all: what each step needs then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from hyps.passes.cost.arena_layout import FULL_ARENA_BYTES, arena_events, tight_region_bytes
from hyps.passes.cost.blocked_layout import blocked_view, is_reordered
from hyps.passes.cost.computed_types import HALF_FLOATS
from hyps.passes.cost.footprint import SESSION_BYTES, file_bytes, is_in_file
from hyps.passes.cost.partial_arena import some_in_arena
from hyps.passes.cost.residency import ResidencyPlan, StepNeeds, plan_residency
from hyps.passes.cost.session_order import session_order
from hyps.passes.cost.shared_session import shared_session_key
from hyps.passes.cost.tiers import arena_region_bytes, can_use_arena, fresh_pages_s
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.exits import reach_before
from hyps.passes.planning.partitioning import Partitioning
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.residency import StepMemory


class ActivationWay(NamedTuple):
    """A way to hold activations: what each step then needs, the size of the arena (None: no step has it), and who has it.

    ``is_tight``: the arena may turn out too small, so that another way is better where it is as fast.
    """

    needs: tuple[StepNeeds, ...]
    region_bytes: int | None
    in_arena: tuple[bool, ...]
    is_tight: bool = False

    @property
    def alone_bytes(self) -> int:
        """What the largest step needs."""
        return max(need.memory.alone_bytes for need in self.needs)


def activation_ways(
    costed: CostedModel, partitioning: Partitioning, request: Request, budget_bytes: int
) -> Iterator[ActivationWay]:
    """Yield what the steps need with activations in fresh pages, with an arena for some of them, and for all."""
    graph, costs, segments, device = costed.graph, costed.costs, partitioning.segments, request.device
    reach = reach_before(graph, request, [0, *partitioning.cuts])
    needs = tuple(
        replace(need, reach=part) for need, part in zip(_step_needs(graph, partitioning, device), reach, strict=True)
    )
    fresh_s = [fresh_pages_s(graph, costs, segment.operators, device.fresh_bytes_per_s) for segment in segments]
    nothing = (False,) * len(segments)
    lean = tuple(replace(need, fresh_s=seconds) for need, seconds in zip(needs, fresh_s, strict=True))
    yield ActivationWay(lean, None, nothing)
    if request.tier == "lean" or not can_use_arena(graph):
        return
    live = [segment.activation_bytes - costs.input_bytes for segment in segments]
    memory = [need.memory for need in needs]
    is_inner = [not {*segment.outputs} & {*graph.outputs} for segment in segments]
    if found := some_in_arena(memory, live, fresh_s, is_inner, budget_bytes, device.fresh_bytes_per_s):
        kept = ((a if inside else b) for a, b, inside in zip(needs, lean, found.in_arena, strict=True))
        grown = [
            _grown(need, nbytes, seconds) for need, nbytes, seconds in zip(kept, found.more_bytes, found.more_s, strict=True)
        ]
        yield ActivationWay(tuple(grown), found.region_bytes, found.in_arena)
    kept_bytes = sum(graph.tensors[name].nbytes for name in graph.outputs)  # of the inference before
    has_half_floats = any(weight.dtype in HALF_FLOATS for weight in graph.weights.values())
    live_bytes = (max(live) + kept_bytes) * (2 if has_half_floats else 1)  # onnxruntime computes them in 32 bits
    if (large_bytes := arena_region_bytes(live_bytes, len(segments))) is None:
        return
    orders = [session_order(graph, segment.operators, segment.outputs) for segment in segments]
    blocked, prints = blocked_view(graph, request.threads)
    layouts = arena_events(graph, costed.footprints, orders), arena_events(blocked, prints, orders, is_reordered)
    tight_bytes = tight_region_bytes(layouts, large_bytes - FULL_ARENA_BYTES, live_bytes)
    for region_bytes in (large_bytes, tight_bytes) if tight_bytes else (large_bytes,):
        is_tight = region_bytes < large_bytes  # a large arena is never used in full
        counted = region_bytes + (FULL_ARENA_BYTES if is_tight else 0)
        grown = [_grown(need, counted - nbytes, 0.0) for need, nbytes in zip(needs, live, strict=True)]
        yield ActivationWay(tuple(grown), region_bytes, (True,) * len(segments), is_tight)


def _grown(need: StepNeeds, nbytes: int, seconds: float) -> StepNeeds:
    """Return what a step needs that takes so much more memory and time."""
    memory = replace(need.memory, alone_bytes=need.memory.alone_bytes + nbytes)
    return replace(need, memory=memory, compute_s=need.compute_s + seconds)


def fastest_way(
    ways: Sequence[ActivationWay], budget_bytes: int, device: DeviceRates
) -> tuple[ResidencyPlan, ActivationWay]:
    """Return what stays in memory, and how activations are held: in an arena if it saves more than it displaces."""
    fitting = (way for way in ways if way.alone_bytes <= budget_bytes)
    found = ((plan_residency(way.needs, budget_bytes, device), way) for way in fitting)
    return min(found, key=lambda each: (each[0].latency_s, each[1].is_tight, each[0].rank))


def _step_needs(graph: Graph, partitioning: Partitioning, device: DeviceRates) -> Iterator[StepNeeds]:
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
        copying = segment.leaving_bytes / device.memory_bytes_per_s
        yield StepNeeds(memory=memory, compute_s=computing + copying, opening_s=device.opening_s(len(own)))
