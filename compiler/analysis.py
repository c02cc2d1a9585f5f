"""What a model is made of, and where it can be cut: what ``hypsc analyze`` shows (Kaboubi, sections 3.2.3 to 3.2.5).

Operators are in the model's own order; batch normalisations are folded into convolutions, as ``hypsc compile`` does, and
onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hyps.compiler.model_io.load import LoadedModel
from hyps.passes.cost.compute import multiply_adds
from hyps.passes.planning.costed_model import CostedModel
from hyps.passes.planning.request import Request
from hyps.passes.planning.required_cuts import mandatory_cuts, pooling_cuts
from hyps.passes.planning.sharded_model import required_splits
from hyps.runtime.bundle.manifest import Count, Name, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator: elements and bytes of its weights, bytes of its outputs, multiply-adds, what is live while it runs.

    ``live_bytes`` are activations and workspace in one session of the whole model, without weights. A weight that several
    read counts at each. ``alone_bytes`` is the process's peak with this operator as a partition by itself.
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
    """All operators of a type, added up; ``live_bytes`` is the most."""

    op_type: Name
    operators: Count
    parameters: Count
    weight_bytes: Count
    activation_bytes: Count
    multiply_adds: Count
    live_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPoint:
    """A place to cut: behind the operator at ``position`` - 1; ``crossing_bytes`` would be handed over there."""

    position: Positive
    behind: str
    mandatory: bool
    crossing_bytes: Count
    reason: str

    @property
    def kind(self) -> str:
        """In a word."""
        return "mandatory" if self.mandatory else "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A model. ``weight_bytes`` counts shared weights once; ``crossing_bytes`` has an entry for every cut position.

    Of the whole model in one session, the process holds ``process_bytes`` by itself, ``resident_bytes`` of weights, and what
    is live; while it starts, ``start_bytes`` at most. ``smallest_budget_bytes`` is the least budget that works; None, for
    ``why_none``, where none does.
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


def analysis(
    loaded: LoadedModel,
    whole: CostedModel,
    request: Request,
    target_name: str,
    smallest: int | None,
    why_none: str | None = None,
) -> Analysis:
    """The figures of a model whose operators keep their order, for a request's budget, device and threads."""
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
    )


def _rows(whole: CostedModel) -> Iterator[OperatorRow]:
    graph, costs = whole.graph, whole.costs
    alone = costs.alone()
    live = costs.live_from(0)
    for index, operator in enumerate(graph.operators):
        weights = [graph.weights[name] for name in operator.weights]
        made = [graph.tensors[name] for name in operator.outputs if name in graph.tensors]
        yield OperatorRow(
            name=operator.name,
            op_type=operator.op_type,
            shape=made[0].shape if made else (),
            parameters=sum(math.prod(weight.shape) for weight in weights),
            weight_bytes=sum(weight.nbytes for weight in weights),
            activation_bytes=sum(tensor.nbytes for tensor in made),
            multiply_adds=multiply_adds(graph, operator),
            live_bytes=int(live[index]),
            alone_bytes=int(alone[index]),
        )


def _types(rows: Iterable[OperatorRow]) -> Iterator[TypeRow]:
    """The types with the most weights first."""
    by_type: dict[str, list[OperatorRow]] = {}
    for row in rows:
        by_type.setdefault(row.op_type, []).append(row)
    found = [
        TypeRow(
            op_type=kind,
            operators=len(own),
            parameters=sum(row.parameters for row in own),
            weight_bytes=sum(row.weight_bytes for row in own),
            activation_bytes=sum(row.activation_bytes for row in own),
            multiply_adds=sum(row.multiply_adds for row in own),
            live_bytes=max(row.live_bytes for row in own),
        )
        for kind, own in by_type.items()
    ]
    yield from sorted(found, key=lambda row: (-row.weight_bytes, -row.activation_bytes, row.op_type))


def _splits(whole: CostedModel, request: Request) -> Iterator[SplitPoint]:
    """Mandatory ones stand around what is too big by itself for the budget; optional ones behind poolings."""
    graph, crossing = whole.graph, whole.costs.crossing
    places = {operator.name: index for index, operator in enumerate(graph.operators)}
    reasons: dict[int, str] = {}
    for split in required_splits(whole, request) if request.budget_bytes or request.max_params else ():
        index = places[split.operator]
        for position in mandatory_cuts([(index, index)], len(places)):
            reasons.setdefault(position, f"{split.reason}: {split.count} shards")
    mandatory = set(reasons)
    for position in pooling_cuts(graph, whole.sealed):
        reasons.setdefault(position, f"behind {graph.operators[position - 1].op_type}: little data crosses behind pooling")
    for position in sorted(reasons):
        yield SplitPoint(
            position=position,
            behind=graph.operators[position - 1].name,
            mandatory=position in mandatory,
            crossing_bytes=int(crossing[position]),
            reason=reasons[position],
        )
