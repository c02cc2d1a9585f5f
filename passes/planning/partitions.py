"""Turn cut positions into segments, and segments into partitions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hyps.passes.cost.compute import multiply_adds
from hyps.passes.cost.costs import Bytes, Costs
from hyps.passes.cost.liveness import LiveRange, live_ranges
from hyps.passes.cost.row_reads import RowRead, row_read
from hyps.passes.cost.schedule import schedule_bytes
from hyps.passes.cost.session_order import file_order
from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import POOLINGS
from hyps.passes.planning.plan import Partition, Tier
from hyps.runtime.bundle.manifest import Reason
from hyps.runtime.bundle.residency import StepResidency
from hyps.runtime.units import megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of operators between two cuts, with the tensors at its ends and the bytes that it needs alone in memory.

    ``operators`` are indices, in the order for the partition's file. ``live`` are the tensors that are kept after it,
    ``leaving_bytes`` in total. ``alone_bytes`` is the predicted process peak.
    """

    operators: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    live: tuple[str, ...]
    weight_bytes: int
    activation_bytes: int
    alone_bytes: int
    leaving_bytes: int


class Segments:
    """The segments of one graph; each is computed once, for many choices of cuts have segments in common.

    A session runs the operators of a file in an order of its own. Where that order needs more than the planned one, so does
    the segment.
    """

    def __init__(self, graph: Graph, costs: Costs) -> None:
        self._graph, self._costs = graph, costs
        self._known: dict[tuple[int, int], Segment] = {}
        self._last_kept: dict[tuple[int, ...], Segment] = {}

    def between(self, cuts: tuple[int, ...]) -> tuple[Segment, ...]:
        """Return the segments between ``cuts``."""
        held = dict.fromkeys(self._graph.inputs)
        found: list[tuple[Segment, tuple[str, ...], int]] = []
        names = 0
        for start, stop in itertools.pairwise((0, *cuts, len(self._graph.operators))):
            segment = self._of(start, stop)
            held_count = len(held) + len(segment.outputs)
            held |= dict.fromkeys(segment.outputs)
            for name in itertools.chain.from_iterable(self._last_read[start:stop]):
                held.pop(name, None)
            live = tuple(held)
            names += len(segment.inputs) + len(segment.outputs) + len(live)
            found.append((segment, live, held_count))
        return tuple(
            self._kept(segment, live, schedule_bytes(steps=len(found), names=names, held=count))
            for segment, live, count in found
        )

    def _kept(self, segment: Segment, live: tuple[str, ...], more_bytes: int) -> Segment:
        """Return a segment with the tensors that are kept after it, and ``more_bytes``; most often it was so before."""
        known = self._last_kept.get(segment.operators)
        alone_bytes = segment.alone_bytes + more_bytes
        if known is None or known.alone_bytes != alone_bytes or known.live != live:
            known = self._last_kept[segment.operators] = replace(segment, live=live, alone_bytes=alone_bytes)
        return known

    def _of(self, start: int, stop: int) -> Segment:
        """Return a segment without the tensors that are kept after it."""
        if (start, stop) not in self._known:
            self._known[start, stop] = self._segment(start, stop)
        return self._known[start, stop]

    def _segment(self, start: int, stop: int) -> Segment:
        graph, costs, lives = self._graph, self._costs, self._lives
        order, live_bytes = file_order(graph, costs, lives, range(start, stop), int(self._entering_bytes[start]))
        operators = [graph.operators[index] for index in order]
        read = dict.fromkeys(name for operator in operators for name in operator.inputs)
        planned = int(costs.activations_from(start, stop)[-1])
        activations = max(planned, live_bytes)
        weights = int(costs.weights_from(start, stop)[-1])
        return Segment(
            operators=order,
            inputs=tuple(name for name in read if lives[name].first < start),
            outputs=tuple(name for operator in operators for name in operator.outputs if lives[name].last >= stop),
            live=(),
            weight_bytes=weights,
            activation_bytes=activations,
            alone_bytes=costs.process_bytes + weights + activations,
            leaving_bytes=int(costs.crossing[stop]),
        )

    @cached_property
    def _lives(self) -> Mapping[str, LiveRange]:
        return live_ranges(self._graph)

    @cached_property
    def _last_read(self) -> list[list[str]]:
        """The tensors that each operator reads, or writes, last."""
        found: list[list[str]] = [[] for _ in self._graph.operators]
        for name, live in self._lives.items():
            if live.last < len(found):
                found[max(0, live.last)].append(name)
        return found

    @cached_property
    def _entering_bytes(self) -> Bytes:
        """The bytes that cross every position, without the model's inputs."""
        own = np.zeros(len(self._graph.operators) + 1, np.int64)
        for name in self._graph.inputs:
            own[: self._lives[name].last + 1] += self._graph.tensors[name].nbytes
        return self._costs.crossing - own


def partitions(
    graph: Graph,
    segments: Sequence[Segment],
    residencies: Sequence[StepResidency],
    reasons: Mapping[int, Reason],
    start_bytes: int = 0,
    tiers: Sequence[Tier] | None = None,
) -> tuple[Partition, ...]:
    """Return the partitions of a plan: ``segments`` with what of each stays in memory.

    ``reasons`` are those of cuts that the budget alone does not explain, by position. No peak is below ``start_bytes``,
    which the process needs to start. Without ``tiers`` all are lean.
    """
    parts = []
    start = crossing_bytes = 0
    for number, (segment, residency) in enumerate(zip(segments, residencies, strict=True)):
        operators = [graph.operators[index] for index in segment.operators]
        stop = start + len(operators)
        before = graph.operators[start - 1] if start else None
        parts.append(
            Partition(
                name=f"{number:02d}-{file_name(graph.operators[stop - 1].name)}",
                operators=tuple(operator.name for operator in operators),
                inputs=segment.inputs,
                outputs=segment.outputs,
                live=segment.live,
                multiply_adds=sum(multiply_adds(graph, operator) for operator in operators),
                weight_bytes=segment.weight_bytes,
                activation_bytes=segment.activation_bytes,
                alone_bytes=segment.alone_bytes,
                peak_bytes=max(residency.peak_bytes, start_bytes),
                pinned_bytes=residency.pinned_bytes,
                ahead_bytes=residency.ahead_bytes,
                kept=residency.session_stays_open,
                # onnxruntime keeps a tensor's memory for the next one of its shape. Tiles repeat each shape, so what one
                # tile needs would stay while the next runs, once for every height.
                reuse=not any(operator.origin and operator.origin.is_tile for operator in operators),
                leaving_bytes=segment.leaving_bytes,
                reason=_with_rows(_reason(before, crossing_bytes, reasons.get(start)), row_read(graph, operators[0])),
                reads_rows=bool(operators[0].table),
                tier=tiers[number] if tiers else "lean",
            )
        )
        start, crossing_bytes = stop, segment.leaving_bytes
    return tuple(parts)


def _reason(before: Operator | None, crossing_bytes: int, reason: Reason | None) -> Reason:
    """Return why a partition starts after ``before``; a reason without a text is completed by what crosses the cut."""
    if before is None:
        return Reason(kind="first", text="starts at the model's input")
    if reason is not None and reason.text:
        return reason
    where = "after pooling" if before.op_type in POOLINGS else f"after {before.op_type}"
    text = f"{where} {before.name}, where {megabytes(crossing_bytes)} cross"
    return Reason(kind=reason.kind if reason else "budget", text=text)


def _with_rows(reason: Reason, rows: RowRead | None) -> Reason:
    """Return the reason of a partition that may read rows of a table, which it then says."""
    return Reason(kind=reason.kind, text=f"{rows}; {reason.text}") if rows else reason


def file_name(operator: str) -> str:
    """Return an operator's name as a part of a file name, of at most 60 characters."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", operator).strip("-")[-60:].lstrip("-") or "operator"
