"""Turn cut positions into partitions: what goes in and out, what that needs, and why each starts where it does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from hyps.passes.cost.compute import multiply_adds
from hyps.passes.cost.costs import Costs
from hyps.passes.cost.liveness import lifetimes
from hyps.passes.cost.session_order import file_order
from hyps.passes.graph import Graph
from hyps.passes.planning.plan import Partition
from hyps.passes.planning.required_cuts import POOLINGS
from hyps.passes.tiling.tiles import is_tile
from hyps.runtime.bundle.manifest import Reason
from hyps.runtime.units import megabytes


def partitions(graph: Graph, costs: Costs, cuts: tuple[int, ...], reasons: Mapping[int, Reason]) -> tuple[Partition, ...]:
    """The partitions between ``cuts``; ``reasons`` are those of cuts that the budget alone does not explain, by position.

    The operators of each are in the order for its file; it needs what its session's own order does, if that is more.
    """
    lives = lifetimes(graph)
    held = dict.fromkeys(graph.inputs)
    parts = []
    for index, (start, stop) in enumerate(itertools.pairwise((0, *cuts, len(graph.operators)))):
        entering = sum(graph.tensors[name].nbytes for name in held if lives[name].born >= 0)
        order, live_bytes = file_order(graph, costs, lives, range(start, stop), entering)
        operators = [graph.operators[place] for place in order]
        read = dict.fromkeys(name for operator in operators for name in operator.inputs)
        held |= dict.fromkeys(name for operator in operators for name in operator.outputs)
        held = {name: None for name in held if lives[name].last >= stop}
        live = tuple(held)
        weights = int(costs.weights_from(start, stop)[-1])
        planned = int(costs.activations_from(start, stop)[-1])
        activations = max(planned, live_bytes)
        peak = int(costs.peaks_from(start, stop)[-1]) + activations - planned
        parts.append(
            Partition(
                name=f"{index:02d}-{_file_name(graph.operators[stop - 1].name)}",
                operators=tuple(operator.name for operator in operators),
                inputs=tuple(name for name in read if lives[name].born < start),
                outputs=tuple(name for name in live if lives[name].born >= start),
                live=live,
                multiply_adds=sum(multiply_adds(graph, operator) for operator in operators),
                weight_bytes=weights,
                activation_bytes=activations,
                alone_bytes=peak,
                peak_bytes=peak,
                pinned_bytes=0,
                ahead_bytes=0,
                kept=False,
                reuse=not any(is_tile(operator.name) for operator in operators),
                leaving_bytes=int(costs.crossing[stop]),
                reason=_reason(graph, costs, start, reasons.get(start)),
            )
        )
    return tuple(parts)


def _reason(graph: Graph, costs: Costs, start: int, reason: Reason | None) -> Reason:
    """Return why a partition starts at ``start``; a reason without a text is completed by what crosses the cut."""
    if start == 0:
        return Reason(kind="first", text="starts at the model's input")
    if reason is not None and reason.text:
        return reason
    before = graph.operators[start - 1]
    where = "after pooling" if before.op_type in POOLINGS else f"after {before.op_type}"
    text = f"{where} {before.name}, where {megabytes(int(costs.crossing[start]))} cross"
    return Reason(kind=reason.kind if reason else "budget", text=text)


def _file_name(operator: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", operator).strip("-")[-60:].lstrip("-") or "operator"
