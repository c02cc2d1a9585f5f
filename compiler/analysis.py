"""Compute what ``hypsc analyze`` shows: each operator's figures, and the split points (Kaboubi, sections 3.2.3 to 3.2.5).

Operators are in the model's own order. Batch normalisations are folded into convolutions, as in ``hypsc compile`` and in
onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hyps.compiler.model_io.load import LoadedModel
from hyps.passes.cost.compute import multiply_adds
from hyps.passes.planning.coded_splits import PossibleCode, possible_codes
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.request import Request
from hyps.passes.planning.required_cuts import mandatory_cuts, pooling_cuts
from hyps.passes.planning.sharded_model import required_splits
from hyps.runtime.bundle.manifest import Count, Name, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """The figures of one operator.

    ``parameters`` and ``weight_bytes`` are the elements and bytes of its weights; a weight that several operators read
    counts at each. ``activation_bytes`` are its outputs. ``live_bytes`` are the activations and workspace that are live
    while it runs, in one session of the whole model. ``alone_bytes`` is the process's peak if the operator is a partition
    of its own.
    """

    name: str
    op_type: str
    shape: tuple[int, ...]
    parameters: int
    weight_bytes: int
    activation_bytes: int
    multiply_adds: int
    live_bytes: int
    alone_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow:
    """The sums over all operators of one type; ``live_bytes`` is the maximum."""

    op_type: Name
    operators: Count
    parameters: Count
    weight_bytes: Count
    activation_bytes: Count
    multiply_adds: Count
    live_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPoint:
    """A place to cut, before the operator at ``position``; ``crossing_bytes`` are the bytes of the tensors that cross it.

    ``behind`` names the operator before the cut.
    """

    position: Positive
    behind: str
    mandatory: bool
    crossing_bytes: Count
    reason: str

    @property
    def kind(self) -> str:
        """``mandatory`` or ``optional``."""
        return "mandatory" if self.mandatory else "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The figures of a model.

    ``weight_bytes`` counts shared weights once; ``crossing_bytes`` has one entry per cut position. A process that runs
    the whole model in one session holds ``process_bytes`` for itself, ``resident_bytes`` of weights, and the live
    activations; it peaks at ``start_bytes`` while it starts. ``smallest_budget_bytes`` is the smallest budget that works; if
    no budget works, it is None and ``why_none`` says why. ``codes`` are those that ``--tolerate 1`` gives the largest
    operators.
    """

    model: str
    target: str
    budget_bytes: int | None
    operators: tuple[OperatorRow, ...]
    types: tuple[TypeRow, ...]
    splits: tuple[SplitPoint, ...]
    parameters: int
    weight_bytes: int
    multiply_adds: int
    process_bytes: int
    start_bytes: int
    resident_bytes: int
    whole_peak_bytes: int
    smallest_budget_bytes: int | None
    why_none: str | None
    crossing_bytes: tuple[int, ...]
    codes: tuple[PossibleCode, ...]


def analysis(
    loaded: LoadedModel,
    whole: CostedModel,
    request: Request,
    target_name: str,
    smallest: int | None,
    why_none: str | None = None,
) -> Analysis:
    """Return the figures of a model whose operators keep their order, for a request's budget, device and threads."""
    rows = tuple(_rows(whole))
    return Analysis(
        model=loaded.name,
        target=target_name,
        budget_bytes=request.budget_bytes,
        operators=rows,
        types=tuple(_types(rows)),
        splits=tuple(_splits(whole, request)),
        parameters=loaded.parameters,
        weight_bytes=loaded.weight_bytes,
        multiply_adds=sum(row.multiply_adds for row in rows),
        process_bytes=request.process_bytes,
        start_bytes=request.start_bytes,
        resident_bytes=int(whole.costs.weights_from(0)[-1]) if rows else 0,
        whole_peak_bytes=max(request.start_bytes, int(whole.costs.peaks_from(0)[-1])) if rows else 0,
        smallest_budget_bytes=smallest,
        why_none=why_none,
        crossing_bytes=tuple(int(nbytes) for nbytes in whole.costs.crossing[: len(rows) + 1]),
        codes=tuple(possible_codes(whole.shard_options, 1)),
    )


def _rows(whole: CostedModel) -> Iterator[OperatorRow]:
    graph, costs = whole.graph, whole.costs
    alone = costs.alone()
    live = costs.live_from(0)
    for index, operator in enumerate(graph.operators):
        weights = [graph.weights[name] for name in operator.weights]
        outputs = [graph.tensors[name] for name in operator.outputs if name in graph.tensors]
        yield OperatorRow(
            name=operator.name,
            op_type=operator.op_type,
            shape=outputs[0].shape if outputs else (),
            parameters=sum(math.prod(weight.shape) for weight in weights),
            weight_bytes=sum(weight.nbytes for weight in weights),
            activation_bytes=sum(tensor.nbytes for tensor in outputs),
            multiply_adds=multiply_adds(graph, operator),
            live_bytes=int(live[index]),
            alone_bytes=int(alone[index]),
        )


def _types(rows: Iterable[OperatorRow]) -> Iterator[TypeRow]:
    """Yield the sums of each type, the type with the most weights first."""
    by_type: dict[str, list[OperatorRow]] = {}
    for row in rows:
        by_type.setdefault(row.op_type, []).append(row)
    sums = [
        TypeRow(
            op_type=kind,
            operators=len(operators),
            parameters=sum(row.parameters for row in operators),
            weight_bytes=sum(row.weight_bytes for row in operators),
            activation_bytes=sum(row.activation_bytes for row in operators),
            multiply_adds=sum(row.multiply_adds for row in operators),
            live_bytes=max(row.live_bytes for row in operators),
        )
        for kind, operators in by_type.items()
    ]
    yield from sorted(sums, key=lambda row: (-row.weight_bytes, -row.activation_bytes, row.op_type))


def _splits(whole: CostedModel, request: Request) -> Iterator[SplitPoint]:
    """Yield the mandatory split points, around operators too large for the budget, and the optional ones, after poolings."""
    graph, crossing = whole.graph, whole.costs.crossing
    places = {operator.name: index for index, operator in enumerate(graph.operators)}
    reasons: dict[int, str] = {}
    for split in required_splits(whole, request) if request.budget_bytes or request.max_params else ():
        index = places[split.operator]
        for position in mandatory_cuts([(index, index)], len(places)):
            reasons.setdefault(position, f"{split.reason}: {split.count} shards")
    mandatory = set(reasons)
    for position in pooling_cuts(graph, whole.sealed):
        reasons.setdefault(position, f"after {graph.operators[position - 1].op_type}, where little data crosses")
    for position in sorted(reasons):
        yield SplitPoint(
            position=position,
            behind=graph.operators[position - 1].name,
            mandatory=position in mandatory,
            crossing_bytes=int(crossing[position]),
            reason=reasons[position],
        )
