"""Which operators are too big by themselves, by which method they are split, and the fewest shards that make them fit.

Kaboubi's Algorithm 1 (section 3.2.5) calls a layer complex when it alone reaches the threshold; the fewest H-partitions
follow from section 3.2.4 (each more costs synchronisation). The threshold is a budget in bytes, the thesis's number of
parameters, or both. Of the methods (Hadidi, section 4.3.5) those that keep every bit come first, then that which takes
least time; input and filter splits are the last resort.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hyps.passes.cost_model.costs import Costs
from hyps.passes.cost_model.footprint import NODE_BYTES
from hyps.passes.device import Device
from hyps.passes.errors import DoesNotFit
from hyps.passes.sharding.layouts import METHODS, PRODUCTS, Method
from hyps.passes.sharding.shard import Split
from hyps.passes.sharding.ways import Way, Ways
from hyps.passes.units import megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What one operator may need: bytes of process memory, parameters (fewer than), or both; and how it may be split.

    Products may need ``product_bytes``, where that is given: their shards cost no more than steps, while a convolution
    unfolds its input again for each. With ``exact`` what cannot be split without changing bits is left whole.
    ``given_bytes`` is the user's budget, where the planner tries less.
    """

    budget_bytes: int | None = None
    given_bytes: int | None = None
    max_params: int | None = None
    methods: Collection[Method] = METHODS
    product_bytes: int | None = None
    exact: bool = False

    def of(self, kind: str) -> Threshold:
        """The threshold of an operator of this kind."""
        return self if self.product_bytes is None or kind not in PRODUCTS else replace(self, budget_bytes=self.product_bytes)


def oversize(ways: Ways, threshold: Threshold, device: Device, left: Collection[str] = ()) -> tuple[Split, ...]:
    """The operators at or over the threshold, each with the fewest shards below it; those in ``left`` are not looked at.

    Raises `DoesNotFit` for an operator that reaches ``max_params`` and cannot be split; one that exceeds only the budget
    is left to the planner, which may still place it.
    """
    found = []
    given = threshold
    for index in _suspects(ways, given):
        operator = ways.graph.operators[index]
        threshold = given.of(operator.op_type)
        params = sum(math.prod(ways.graph.weights[name].shape) for name in operator.weights)
        first, last = ways.spans.get(index, (index, index))
        many = threshold.max_params is not None and params >= threshold.max_params
        peak = int(ways.costs.peaks_from(first, last + 1)[-1])
        big = threshold.budget_bytes is not None and peak > threshold.budget_bytes
        if operator.name in left or not (many or big):
            continue
        possible = [way for way in ways.of(index) if way.layout.method in threshold.methods]
        if many and not possible:
            raise _too_many(ways, index, params, threshold)
        chosen = _chosen(ways, index, possible, threshold, params, device)
        if chosen is not None:
            way, count = chosen
            reason = _reason(threshold, operator.name, params, peak, next(iter(way.constants), 0))
            found.append(Split(operator=operator.name, method=way.layout.method, count=count, reason=reason))
    return tuple(found)


def finest(ways: Ways, methods: Collection[Method] = METHODS) -> Costs:
    """The costs as they would be with every operator in the most shards: a lower bound for any budget.

    Operators that need less than what another needs at least are left as they are.
    """
    costs = ways.costs
    resident, workspace, live = costs.resident.copy(), costs.workspace.copy(), costs.live.copy()
    lowered = replace(costs, resident=resident, workspace=workspace, live=live, shared=costs.shared[:, :0])
    owner = {member: index for index, (first, last) in ways.spans.items() for member in range(first, last + 1)}
    alone, bound, seen = costs.alone(), 0, set()
    for member in np.argsort(-alone).tolist():
        if alone[member] <= bound:
            break
        index = owner.get(member, member)
        possible = [way for way in ways.of(index) if way.layout.method in methods]
        if possible and index not in seen:
            seen.add(index)
            first, last = ways.spans[index]
            resident[first : last + 1] = NODE_BYTES
            resident[index] += min(way.weight_bytes(way.layout.most) for way in possible)
            workspace[index] = min(workspace[index], *(way.workspace(way.layout.most) for way in possible))
            if possible[0].widened_bytes:
                workspace[first:index] = 0
                live[first : index + 1] -= possible[0].widened_bytes
            if ways.graph.operators[last].op_type == "QuantizeLinear":  # what comes before it is never there whole
                live[index : last + 1] -= possible[0].result_bytes
        needs = resident[member] + live[member] + workspace[member] - costs.reused[member]
        bound = max(bound, costs.process_bytes + costs.input_bytes + int(needs))
    return lowered


def _suspects(ways: Ways, threshold: Threshold) -> Iterator[int]:
    """The operators that might be at or over the threshold."""
    if threshold.max_params is not None or threshold.budget_bytes is None:
        yield from range(ways.costs.count)
        return
    yield from np.flatnonzero(
        ways.at_most > min(threshold.budget_bytes, threshold.product_bytes or threshold.budget_bytes)
    ).tolist()


def _chosen(
    ways: Ways, index: int, possible: Collection[Way], threshold: Threshold, params: int, device: Device
) -> tuple[Way, int] | None:
    """The best way, and the fewest shards, to bring an operator below the threshold; None where it is left whole.

    What onnxruntime computes with it should stay with it; where that never fits, the operator alone should.
    """
    first, last = ways.spans.get(index, (index, index))
    for span in ((first, last), (first, index)):
        alone = int(ways.costs.peaks_from(span[0], span[1] + 1)[-1])
        if _is_below(threshold, alone, params):
            return None
        need = ways.need(index, span) if possible else 0
        counts = ((way, _fewest(way, need - way.whole_bytes, threshold, params)) for way in possible)
        found = [(way, count) for way, count in counts if count is not None]
        if threshold.exact:
            found = [(way, count) for way, count in found if way.inexact_reason(count) is None]
        if found:
            return min(found, key=lambda choice: _rank(choice[0], choice[1], device))
    return None


def _rank(way: Way, count: int, device: Device) -> tuple[bool, bool, float]:
    inexact = way.inexact_reason(count) is not None
    return inexact and way.layout.method == "input", inexact, way.seconds(count, device)


def _fewest(way: Way, others: int, threshold: Threshold, params: int) -> int | None:
    """The fewest shards that are below the threshold, besides ``others`` bytes; None if no number is."""
    layout = way.layout
    divides = layout.method != "spatial"

    def works(count: int) -> bool:
        share = layout.largest(count) / layout.width if divides else 1.0
        return _is_below(threshold, others + way.bytes(count), params * share)

    counts = range(2, layout.most + 1)
    if divides:  # more shards never need more
        return counts[bisect_left(counts, True, key=works)] if works(layout.most) else None
    if not _is_below(threshold, others + way.weight_bytes(2) + way.result_bytes, params):
        return None
    return next((count for count in counts if works(count)), None)


def _is_below(threshold: Threshold, nbytes: int, params: float) -> bool:
    fits = threshold.budget_bytes is None or nbytes <= threshold.budget_bytes
    return fits and (threshold.max_params is None or params < threshold.max_params)


def _too_many(ways: Ways, index: int, params: int, threshold: Threshold) -> DoesNotFit:
    operator = ways.graph.operators[index]
    return DoesNotFit(
        f"{operator.name!r} has {params:,} parameters, --max-params is {threshold.max_params:,}, and "
        f"{ways.refusal(index, threshold.methods)}; raise --max-params",
        operator=operator.name,
        needed_bytes=int(ways.costs.alone()[index]),
        smallest_budget_bytes=None,
    )


def _reason(threshold: Threshold, operator: str, params: int, alone: int, matrix_bytes: int) -> str:
    if threshold.budget_bytes is not None and alone > threshold.budget_bytes:
        budget = threshold.budget_bytes if threshold.given_bytes is None else threshold.given_bytes
        if alone <= budget:
            return f"optional: beside a part of {operator}'s {megabytes(matrix_bytes)} of weights the next can be read"
        return (
            f"mandatory: {operator} holds {megabytes(matrix_bytes)} of weights; alone it needs {megabytes(alone)}, "
            f"{alone / budget:.2f} times the budget"
        )
    return f"mandatory: {operator} has {params:,} parameters, --max-params is {threshold.max_params:,}"
