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

from hyps.passes.cost.costs import Costs
from hyps.passes.cost.footprint import NODE_BYTES
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.sharding.layouts import METHODS, PRODUCTS, Method
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.sharding.shard_options import ShardOption, ShardOptions
from hyps.runtime.bundle.manifest import Reason
from hyps.runtime.units import megabytes


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


def oversize(
    options: ShardOptions, threshold: Threshold, device: DeviceRates, left: Collection[str] = ()
) -> tuple[ShardSpec, ...]:
    """The operators at or over the threshold, each with the fewest shards below it; those in ``left`` are not looked at.

    Raises `DoesNotFit` for an operator that reaches ``max_params`` and cannot be split; one that exceeds only the budget
    is left to the planner, which may still place it.
    """
    found = []
    given = threshold
    for index in _suspects(options, given):
        operator = options.graph.operators[index]
        threshold = given.of(operator.op_type)
        params = sum(math.prod(options.graph.weights[name].shape) for name in operator.weights)
        first, last = options.spans.get(index, (index, index))
        many = threshold.max_params is not None and params >= threshold.max_params
        peak = int(options.costs.peaks_from(first, last + 1)[-1])
        big = threshold.budget_bytes is not None and peak > threshold.budget_bytes
        if operator.name in left or not (many or big):
            continue
        possible = [option for option in options.of(index) if option.layout.method in threshold.methods]
        if many and not possible:
            raise _too_many(options, index, params, threshold)
        chosen = _chosen(options, index, possible, threshold, params, device)
        if chosen is not None:
            option, count = chosen
            reason = _reason(threshold, operator.name, params, peak, next(iter(option.constants), 0))
            found.append(ShardSpec(operator=operator.name, method=option.layout.method, count=count, reason=reason))
    return tuple(found)


def finest(options: ShardOptions, methods: Collection[Method] = METHODS) -> Costs:
    """The costs as they would be with every operator in the most shards: a lower bound for any budget.

    Operators that need less than what another needs at least are left as they are.
    """
    costs = options.costs
    resident, workspace, live = costs.resident.copy(), costs.workspace.copy(), costs.live.copy()
    lowered = replace(costs, resident=resident, workspace=workspace, live=live, shared=costs.shared[:, :0])
    owner = {member: index for index, (first, last) in options.spans.items() for member in range(first, last + 1)}
    alone, bound, seen = costs.alone(), 0, set()
    for member in np.argsort(-alone).tolist():
        if alone[member] <= bound:
            break
        index = owner.get(member, member)
        possible = [option for option in options.of(index) if option.layout.method in methods]
        if possible and index not in seen:
            seen.add(index)
            first, last = options.spans[index]
            resident[first : last + 1] = NODE_BYTES
            resident[index] += min(option.weight_bytes(option.layout.most) for option in possible)
            workspace[index] = min(workspace[index], *(option.workspace(option.layout.most) for option in possible))
            if possible[0].widened_bytes:
                workspace[first:index] = 0
                live[first : index + 1] -= possible[0].widened_bytes
            if options.graph.operators[last].op_type == "QuantizeLinear":  # what comes before it is never there whole
                live[index : last + 1] -= possible[0].result_bytes
        needs = resident[member] + live[member] + workspace[member] - costs.reused[member]
        bound = max(bound, costs.process_bytes + costs.input_bytes + int(needs))
    return lowered


def _suspects(options: ShardOptions, threshold: Threshold) -> Iterator[int]:
    """The operators that might be at or over the threshold."""
    if threshold.max_params is not None or threshold.budget_bytes is None:
        yield from range(options.costs.count)
        return
    yield from np.flatnonzero(
        options.at_most > min(threshold.budget_bytes, threshold.product_bytes or threshold.budget_bytes)
    ).tolist()


def _chosen(
    options: ShardOptions,
    index: int,
    possible: Collection[ShardOption],
    threshold: Threshold,
    params: int,
    device: DeviceRates,
) -> tuple[ShardOption, int] | None:
    """The best option, and the fewest shards, to bring an operator below the threshold; None where it is left whole.

    What onnxruntime computes with it should stay with it; where that never fits, the operator alone should.
    """
    first, last = options.spans.get(index, (index, index))
    for span in ((first, last), (first, index)):
        alone = int(options.costs.peaks_from(span[0], span[1] + 1)[-1])
        if _is_below(threshold, alone, params):
            return None
        need = options.need(index, span) if possible else 0
        counts = ((option, _fewest(option, need - option.whole_bytes, threshold, params)) for option in possible)
        found = [(option, count) for option, count in counts if count is not None]
        if threshold.exact:
            found = [(option, count) for option, count in found if option.inexact_reason(count) is None]
        if found:
            return min(found, key=lambda choice: _rank(choice[0], choice[1], device))
    return None


def _rank(option: ShardOption, count: int, device: DeviceRates) -> tuple[bool, bool, float]:
    inexact = option.inexact_reason(count) is not None
    return inexact and option.layout.method == "input", inexact, option.seconds(count, device)


def _fewest(option: ShardOption, others: int, threshold: Threshold, params: int) -> int | None:
    """The fewest shards that are below the threshold, besides ``others`` bytes; None if no number is."""
    layout = option.layout
    divides = layout.method != "spatial"

    def works(count: int) -> bool:
        share = layout.largest(count) / layout.width if divides else 1.0
        return _is_below(threshold, others + option.bytes(count), params * share)

    counts = range(2, layout.most + 1)
    if divides:  # more shards never need more
        return counts[bisect_left(counts, True, key=works)] if works(layout.most) else None
    if not _is_below(threshold, others + option.weight_bytes(2) + option.result_bytes, params):
        return None
    return next((count for count in counts if works(count)), None)


def _is_below(threshold: Threshold, nbytes: int, params: float) -> bool:
    fits = threshold.budget_bytes is None or nbytes <= threshold.budget_bytes
    return fits and (threshold.max_params is None or params < threshold.max_params)


def _too_many(options: ShardOptions, index: int, params: int, threshold: Threshold) -> DoesNotFit:
    operator = options.graph.operators[index]
    return DoesNotFit(
        f"{operator.name!r} has {params:,} parameters, --max-params is {threshold.max_params:,}, and "
        f"{options.refusal(index, threshold.methods)}; raise --max-params",
        operator=operator.name,
        needed_bytes=int(options.costs.alone()[index]),
        smallest_budget_bytes=None,
    )


def _reason(threshold: Threshold, operator: str, params: int, alone: int, matrix_bytes: int) -> Reason:
    if threshold.budget_bytes is not None and alone > threshold.budget_bytes:
        budget = threshold.budget_bytes if threshold.given_bytes is None else threshold.given_bytes
        if alone <= budget:
            held = f"{operator}'s {megabytes(matrix_bytes)} of weights"
            return Reason(kind="optional", text=f"while a part of {held} computes, the next part is read")
        text = (
            f"{operator} holds {megabytes(matrix_bytes)} of weights; alone it needs {megabytes(alone)}, "
            f"{alone / budget:.2f} times the budget"
        )
        return Reason(kind="mandatory", text=text)
    text = f"{operator} has {params:,} parameters, --max-params is {threshold.max_params:,}"
    return Reason(kind="mandatory", text=text)
