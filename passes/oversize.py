"""Which operators are too big by themselves, and the fewest shards that make them fit.

Kaboubi's Algorithm 1 (section 3.2.5) calls a layer complex when it alone reaches the threshold; the fewest H-partitions
follow from section 3.2.4 (each more costs synchronisation). The threshold is a budget in bytes, the thesis's number of
parameters, or both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from onnx import NodeProto

from hyps.passes.costs import Costs
from hyps.passes.errors import DoesNotFit, UnsupportedModel
from hyps.passes.footprint import NODE_BYTES, mapped_bytes
from hyps.passes.fusion import PRODUCTS, fusion_groups
from hyps.passes.graph import Graph
from hyps.passes.shard import most_shards, shard_widths, shardable_width
from hyps.passes.units import megabytes
from hyps.passes.weights import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Oversize:
    """An operator that must be split: its output columns, into how many shards, and why."""

    operator: str
    width: int
    shards: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What one operator may need: bytes of process memory, parameters (fewer than), or both."""

    budget_bytes: int | None = None
    max_params: int | None = None


def oversize(model: Model, graph: Graph, costs: Costs, threshold: Threshold) -> tuple[Oversize, ...]:
    """The operators at or over the threshold, each with the fewest shards below it.

    Raises `DoesNotFit` for an operator that reaches ``max_params`` and cannot be split; one that exceeds only the budget
    is left to the planner, which may still place it.
    """
    nodes = {node.name: node for node in model.proto.graph.node}
    shapes = {name: weight.shape for name, weight in graph.weights.items()}
    found = []
    needs = zip(costs.alone().tolist(), _fused_needs(graph, costs, threshold.budget_bytes), strict=True)
    for operator, (alone, fused) in zip(graph.operators, needs, strict=True):
        weights = [graph.weights[name] for name in operator.weights]
        params = sum(math.prod(weight.shape) for weight in weights)
        many = threshold.max_params is not None and params >= threshold.max_params
        big = threshold.budget_bytes is not None and fused > threshold.budget_bytes
        if not (many or big):
            continue
        try:
            width = shardable_width(nodes[operator.name], shapes)
        except UnsupportedModel as error:
            if not many:
                continue
            raise DoesNotFit(
                f"{operator.name!r} has {params:,} parameters, --max-params is {threshold.max_params:,}, and {error}; "
                "raise --max-params",
                operator=operator.name,
                needed_bytes=alone,
                smallest_budget_bytes=None,
            ) from None
        matrix = graph.weights[nodes[operator.name].input[1]]
        fewest = (_fewest(threshold, width, params, need, matrix.nbytes) for need in (fused, alone))
        count = next((count for count in fewest if count is not None), 1)
        if count > 1:
            reason = _reason(threshold, operator.name, params, fused, matrix.nbytes)
            found.append(Oversize(operator=operator.name, width=width, shards=count, reason=reason))
    return tuple(found)


def finest(model: Model, graph: Graph, costs: Costs) -> Costs:
    """The costs as they would be with every splittable operator in the most shards: a lower bound for any budget."""
    resident, fused = costs.resident.copy(), dict(_fused_products(graph))
    for index, matrix, width in _splittable(model, graph):
        resident[index : fused.get(index, index) + 1] = NODE_BYTES
        resident[index] += mapped_bytes(_largest_shard(matrix, width, most_shards(width)))
    return replace(costs, resident=resident, shared=costs.shared[:, :0])


def _splittable(model: Model, graph: Graph) -> Iterator[tuple[int, int, int]]:
    """(operator index, bytes of its matrix, output columns) of each operator that can be split by output."""
    nodes: Mapping[str, NodeProto] = {node.name: node for node in model.proto.graph.node}
    shapes = {name: weight.shape for name, weight in graph.weights.items()}
    for index, operator in enumerate(graph.operators):
        try:
            width = shardable_width(nodes[operator.name], shapes)
        except UnsupportedModel:
            continue
        yield index, graph.weights[nodes[operator.name].input[1]].nbytes, width


def _largest_shard(matrix_bytes: int, width: int, count: int) -> int:
    return matrix_bytes // width * max(shard_widths(width, count))


def _fewest(threshold: Threshold, width: int, params: int, need: int, matrix_bytes: int) -> int | None:
    """The fewest shards of which each is below the threshold, of an operator that needs so much whole; None without."""
    others = need - mapped_bytes(matrix_bytes)
    for count in range(1, most_shards(width) + 1):
        shard = mapped_bytes(_largest_shard(matrix_bytes, width, count))
        fits = threshold.budget_bytes is None or others + shard <= threshold.budget_bytes
        few = threshold.max_params is None or params * max(shard_widths(width, count)) < threshold.max_params * width
        if fits and few:
            return count
    return None


def _fused_needs(graph: Graph, costs: Costs, budget_bytes: int | None) -> list[int]:
    """The predicted peak of every operator; of a product that might exceed the budget so, with what is fused to it."""
    alone = costs.alone()
    needs: list[int] = alone.tolist()
    for first, last in _fused_products(graph):
        at_most = int(alone[first : last + 1].sum()) - (last - first) * costs.process_bytes
        if budget_bytes is not None and at_most > budget_bytes:
            needs[first] = int(costs.peaks_from(first, last + 1)[-1])
    return needs


def _fused_products(graph: Graph) -> Iterator[tuple[int, int]]:
    """(first, last) of each product and the operators fused to it that follow it at once."""
    if not any(operator.op_type in PRODUCTS for operator in graph.operators):
        return
    for group in fusion_groups(graph):
        for first in group:
            if graph.operators[first].op_type not in PRODUCTS:
                continue
            last = first
            while last + 1 in group and graph.operators[last + 1].op_type not in PRODUCTS:
                last += 1
            yield first, last


def _reason(threshold: Threshold, operator: str, params: int, alone: int, matrix_bytes: int) -> str:
    if threshold.budget_bytes is not None and alone > threshold.budget_bytes:
        ratio = alone / threshold.budget_bytes
        return (
            f"mandatory: {operator} holds {megabytes(matrix_bytes)} of weights; alone it needs {megabytes(alone)}, "
            f"{ratio:.2f} times the budget"
        )
    return f"mandatory: {operator} has {params:,} parameters, --max-params is {threshold.max_params:,}"
