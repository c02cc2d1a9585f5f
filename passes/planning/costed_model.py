"""Predict what a model's operators need, in its own order or in a better one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto

from hyps.passes.cost.blocked_layout import layout_costs
from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.fusion import fused_positions, fusion_groups
from hyps.passes.cost.row_reads import with_row_reads
from hyps.passes.graph import Graph, view
from hyps.passes.planning.exits import exit_stages
from hyps.passes.planning.grouping import grouped_order
from hyps.passes.planning.order import lowest_peak_order, reordered
from hyps.passes.planning.partitions import Segments
from hyps.passes.planning.request import Request
from hyps.passes.sharding.shard_options import ShardOptions
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostedModel:
    """A model with its graph, its predicted costs, its segments and the ways to split its operators; compared by identity.

    ``sealed`` are the cut positions that would separate fused operators.
    """

    model: Model
    graph: Graph
    footprints: Mapping[str, Footprint]
    costs: Costs
    sealed: frozenset[int]
    shard_options: ShardOptions
    segments: Segments


def with_costs(model: Model, request: Request) -> CostedModel:
    """Return a model with its costs; its operators keep their order."""
    graph = view(model)
    return _costed(model, graph, footprints(graph, request.threads), request)


def with_lowest_peak_order(model: Model, request: Request) -> CostedModel:
    """Return the model with its operators in the order with the lowest peak; unchanged if that is the given order.

    What an exit needs comes before what only later exits need.
    """
    graph = view(model)
    stages: Sequence[int] = ()
    if request.exits:
        given = exit_stages(graph, request.exits)
        model, graph = _in_order(model, graph, tuple(sorted(range(len(given)), key=given.__getitem__)))
        stages = sorted(given)
    by_operator = footprints(graph, request.threads)
    order = lowest_peak_order(graph, by_operator, fusion_groups(graph), stages).order
    return _costed(*_in_order(model, graph, order), by_operator, request)


def with_rows_read(whole: CostedModel, request: Request) -> CostedModel:
    """Return the model with each table left out of memory whose rows are cheaper to read; unchanged if there is none."""
    model = with_row_reads(whole.model, whole.graph)
    return whole if model is whole.model else with_lowest_peak_order(model, request)


def with_grouped_operators(whole: CostedModel, tileable: Collection[str], request: Request) -> CostedModel:
    """Return the model with its ``tileable`` operators next to each other; unchanged if they already are."""
    order = grouped_order(whole.graph, tileable)
    if order == tuple(range(len(order))):
        return whole
    return _costed(*_in_order(whole.model, whole.graph, order), footprints(whole.graph, request.threads), request)


def _costed(model: Model, graph: Graph, by_operator: Mapping[str, Footprint], request: Request) -> CostedModel:
    graph_costs = costs(graph, by_operator, request.process_bytes)
    if request.tunable:
        graph_costs = replace(graph_costs, tuned=layout_costs(graph, request.threads, request.process_bytes))
    options = ShardOptions(model, graph, graph_costs, request.threads)
    return CostedModel(
        model=model,
        graph=graph,
        footprints=by_operator,
        costs=graph_costs,
        sealed=fused_positions(graph),
        shard_options=options,
        segments=Segments(graph, graph_costs),
    )


def _in_order(model: Model, graph: Graph, order: tuple[int, ...]) -> tuple[Model, Graph]:
    if order == tuple(range(len(order))):
        return model, graph
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.node[:]
    proto.graph.node.extend(model.proto.graph.node[index] for index in order)
    return replace(model, proto=proto), reordered(graph, order)
