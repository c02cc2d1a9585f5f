"""Split the operators that are too big alone: choose the method, and the fewest shards that make them fit.

Kaboubi's Algorithm 1 (section 3.2.5) calls a layer complex when it alone reaches the threshold; the fewest H-partitions
follow from section 3.2.4 (each additional one costs synchronisation). The threshold is a budget in bytes, the thesis's
number of parameters, or both. Of the methods (Hadidi, section 4.3.5) those that keep every bit come first, then the one that
takes least time; input and filter splits are the last resort.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyps.passes.cost.costs import Costs
from hyps.passes.cost.footprint import NODE_BYTES
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.onnx_ops import PRODUCTS
from hyps.passes.sharding.layouts import METHODS, Method
from hyps.passes.sharding.rewrite import ShardSpec
from hyps.passes.sharding.shard_option import ShardOption
from hyps.passes.sharding.shard_options import ShardOptions
from hyps.runtime.bundle.records.steps import Reason
from hyps.runtime.units import megabytes, megabytes_down, megabytes_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The limits of one operator: bytes of process memory, fewer than a number of parameters, or both.

    ``methods`` are those by which operators may be split. ``product_bytes``, if given, is the limit of products:
    their shards cost only steps, while each shard of a convolution unfolds its input again. With ``exact``, operators that
    cannot be split without changing bits are left whole. ``given_bytes`` is the user's budget where the planner tries a
    smaller one.
    """

    budget_bytes: int | None = None
    given_bytes: int | None = None
    max_params: int | None = None
    methods: Collection[Method] = METHODS
    product_bytes: int | None = None
    exact: bool = False

    def of(self, kind: str) -> Threshold:
        """Return the threshold of an operator of this kind."""
        return self if self.product_bytes is None or kind not in PRODUCTS else replace(self, budget_bytes=self.product_bytes)

    def is_reached(self, nbytes: int, params: float) -> bool:
        """Return whether an operator needs more bytes than it may, or reaches the limit of parameters."""
        too_large = self.budget_bytes is not None and nbytes > self.budget_bytes
        return too_large or self.has_too_many(params)

    def has_too_many(self, params: float) -> bool:
        """Return whether an operator reaches the limit of parameters."""
        return self.max_params is not None and params >= self.max_params


def oversize(
    options: ShardOptions, threshold: Threshold, device: DeviceRates, skipped: Collection[str] = ()
) -> tuple[ShardSpec, ...]:
    """Return the splits of the operators that reach the threshold, each into the fewest shards below it.

    Operators named in ``skipped`` are left out. Raises `DoesNotFit` for an operator that reaches ``max_params`` and cannot
    be split; one that exceeds only the budget is left to the planner, which may still place it.
    """
    splits = []
    for index in _suspects(options, threshold):
        operator = options.graph.operators[index]
        allowed = threshold.of(operator.op_type)
        params = sum(math.prod(options.graph.weights[name].shape) for name in operator.weights)
        first, last = options.spans.get(index, (index, index))
        peak = int(options.costs.peaks_from(first, last + 1)[-1])
        if operator.name in skipped or not allowed.is_reached(peak, params):
            continue
        possible = _possible(options, index, allowed.methods)
        if allowed.has_too_many(params) and not possible:
            raise _too_many_parameters(options, index, params, allowed)
        chosen = _chosen(options, index, possible, allowed, params, device)
        if chosen is not None:
            option, count = chosen
            reason = _reason(allowed, operator.name, params, peak, next(iter(option.constants), 0))
            splits.append(ShardSpec(operator=operator.name, method=option.layout.method, count=count, reason=reason))
    return tuple(splits)


def finest_costs(options: ShardOptions, methods: Collection[Method] = METHODS) -> Costs:
    """Return the costs with every operator in the most shards: a lower bound for any budget.

    Operators that need less than some other needs even in the most shards are left whole.
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
        possible = _possible(options, index, methods)
        if possible and index not in seen:
            seen.add(index)
            first, last = options.spans[index]
            resident[first : last + 1] = NODE_BYTES
            resident[index] += min(option.weight_bytes(option.layout.max_shards) for option in possible)
            workspace[index] = min(workspace[index], *(option.workspace(option.layout.max_shards) for option in possible))
            if possible[0].folded_bytes:
                workspace[first:index] = 0
                live[first : index + 1] -= possible[0].folded_bytes
            if options.graph.operators[last].op_type == "QuantizeLinear":  # the tensors before it never exist whole
                live[index : last + 1] -= possible[0].result_bytes
        needed = resident[member] + live[member] + workspace[member] - costs.in_place[member]
        bound = max(bound, costs.process_bytes + costs.input_bytes + int(needed))
    return lowered


def _possible(options: ShardOptions, index: int, methods: Collection[Method]) -> Sequence[ShardOption]:
    return [option for option in options.of(index) if option.layout.method in methods]


def _suspects(options: ShardOptions, threshold: Threshold) -> Iterator[int]:
    """Yield the operators that might reach the threshold."""
    if threshold.max_params is not None or threshold.budget_bytes is None:
        yield from range(options.costs.count)
        return
    least = min(threshold.budget_bytes, threshold.product_bytes or threshold.budget_bytes)
    yield from np.flatnonzero(options.peak_bounds > least).tolist()


def _chosen(
    options: ShardOptions,
    index: int,
    possible: Sequence[ShardOption],
    threshold: Threshold,
    params: int,
    device: DeviceRates,
) -> tuple[ShardOption, int] | None:
    """Return the best option and its fewest shards to bring an operator below the threshold; None to leave it whole.

    The operators that onnxruntime computes with it should stay in its partition; where that never fits, it should fit alone.
    """
    first, last = options.spans.get(index, (index, index))
    for span in ((first, last), (first, index)):
        peak = int(options.costs.peaks_from(span[0], span[1] + 1)[-1])
        if not threshold.is_reached(peak, params):
            return None
        others = options.peak_without(index, span) if possible else 0
        choices = _choices(possible, others, threshold, params)
        if choices:
            return min(choices, key=lambda choice: _rank(choice[0], choice[1], device))
    return None


def _choices(
    possible: Iterable[ShardOption], others: int, threshold: Threshold, params: int
) -> list[tuple[ShardOption, int]]:
    """Return the options that bring an operator below the threshold, each with its fewest shards.

    ``others`` are the bytes that the operator's partition needs without its workspace and folded weights.
    """
    counts = ((option, _fewest(option, others - option.unsplit_bytes, threshold, params)) for option in possible)
    choices = [(option, count) for option, count in counts if count is not None]
    if threshold.exact:
        choices = [(option, count) for option, count in choices if option.inexact_reason(count) is None]
    return choices


def _rank(option: ShardOption, count: int, device: DeviceRates) -> tuple[bool, bool, float]:
    inexact = option.inexact_reason(count) is not None
    return inexact and option.layout.method == "input", inexact, option.seconds(count, device)


def _fewest(option: ShardOption, others: int, threshold: Threshold, params: int) -> int | None:
    """Return the fewest shards that stay below the threshold together with ``others`` bytes; None if no number does."""
    layout = option.layout
    cuts_weights = layout.method != "spatial"

    def is_enough(count: int) -> bool:
        part = layout.widest(count) / layout.width if cuts_weights else 1.0
        return not threshold.is_reached(others + option.bytes(count), params * part)

    counts = range(2, layout.max_shards + 1)
    if cuts_weights:  # more shards never need more
        return counts[bisect_left(counts, True, key=is_enough)] if is_enough(layout.max_shards) else None
    if threshold.is_reached(others + option.weight_bytes(2) + option.result_bytes, params):
        return None
    return next((count for count in _sparser(counts) if is_enough(count)), None)


def _sparser(counts: range) -> Iterator[int]:
    """Yield the first of ``counts``, then one for every 3 % more, and the last: audio has a million rows."""
    yield from counts[:256]
    count = counts.start + 256
    while count < counts.stop:
        yield count
        count += count // 32
    yield counts[-1]


def _too_many_parameters(options: ShardOptions, index: int, params: int, threshold: Threshold) -> DoesNotFit:
    operator = options.graph.operators[index]
    return DoesNotFit(
        f"{operator.name!r} has {params:,} parameters, --max-params is {threshold.max_params:,}, and "
        f"{options.refusal(index, threshold.methods)}; raise --max-params",
        operator=operator.name,
        needed_bytes=int(options.costs.alone()[index]),
        smallest_budget_bytes=None,
    )


def _reason(threshold: Threshold, operator: str, params: int, peak: int, weight_bytes: int) -> Reason:
    """Return why an operator that needs ``peak`` bytes alone is split."""
    if threshold.budget_bytes is not None and peak > threshold.budget_bytes:
        budget = threshold.budget_bytes if threshold.given_bytes is None else threshold.given_bytes
        if peak <= budget:
            weights = f"{operator}'s {megabytes(weight_bytes)} of weights"
            return Reason(kind="optional", text=f"while a part of {weights} computes, the next part is read")
        factor = f"{peak / budget:.2f}"
        alone = (
            f"alone it needs {megabytes(peak)}, {factor} times the budget"
            if factor != "1.00"
            else f"alone it needs {megabytes_up(peak)}, more than the budget of {megabytes_down(budget)}"
        )
        text = f"{operator} holds {megabytes(weight_bytes)} of weights; {alone}"
        return Reason(kind="mandatory", text=text)
    text = f"{operator} has {params:,} parameters, --max-params is {threshold.max_params:,}"
    return Reason(kind="mandatory", text=text)
