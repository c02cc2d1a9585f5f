"""Predict the memory of any run of consecutive operators, by sums over the execution order.

The process peak of a partition that runs operators ``start .. stop-1`` is

    process + weights of these operators + the most that is live while they run,

where *live* holds

- the model's inputs, which their caller keeps throughout,
- every tensor that crosses the cut at ``start``, until the step ends: the executor owns a session's inputs while it runs,
  and keeps what later steps need,
- what the partition itself produced and still needs,
- the workspace of the operator that runs.

The sum was measured to be within 3 % of VmHWM (DESIGN.md, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.footprint import NODE_BYTES, Footprint, resident_bytes
from hyps.passes.cost.liveness import LiveRange, live_ranges
from hyps.passes.graph import Graph
from hyps.passes.weights import Weight

Bytes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The bytes, per operator and cut position, that `peaks_from` adds up.

    ``process_bytes`` is what the process holds without weights and activations. Indexed by operator: ``resident`` (weights
    that no earlier operator reads, copies, the node itself), ``live``, ``workspace``, ``in_place`` (the part of the output
    that reuses an input's buffer) and ``in_place_first`` (the operator that wrote that input). ``crossing`` is indexed by
    cut position.

    ``shared`` has a column for every further reader of a weight (operator, reader before it, bytes), sorted by operator.
    ``live_ranges`` has one for every tensor but the model's inputs (first, last, bytes), sorted by last. Both keep the work
    of a partition proportional to its length, whatever lies before and after it.

    ``reorder_in`` and ``reorder_out``, by cut position, are the bytes of copies in another layout of what crosses the cut:
    of the partition after it, while that runs, and of the partition before it, at its end. None where there are no layouts.
    ``tuned`` are the costs of the same graph in another layout (`hyps.passes.cost.blocked_layout`): a partition must have
    room for both.
    """

    process_bytes: int
    resident: Bytes
    shared: Bytes
    live: Bytes
    workspace: Bytes
    in_place: Bytes
    in_place_first: Bytes
    crossing: Bytes
    input_bytes: int
    live_ranges: Bytes
    reorder_in: Bytes | None = None
    reorder_out: Bytes | None = None
    tuned: Costs | None = None
    _peaks: dict[tuple[int, int], int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def count(self) -> int:
        """The number of operators."""
        return len(self.live)

    def weights_from(self, start: int, end: int | None = None) -> Bytes:
        """Return the resident weights of the partitions ``[start, stop)``, stop = start+1 .. end, each weight once."""
        end = self.count if end is None else end
        resident = self.resident[start:end]
        low, high = self.shared[0].searchsorted((start, end))
        if low < high:
            operator, previous, nbytes = self.shared[:, low:high]
            enters = previous < start
            resident = resident.copy()
            np.add.at(resident, operator[enters] - start, nbytes[enters])
        return resident.cumsum()

    def live_from(self, start: int, end: int | None = None) -> Bytes:
        """Return the live bytes, workspace included, while each of the operators ``start .. end-1`` runs in one session."""
        end = self.count if end is None else end
        live = self.live[start:end] + self.workspace[start:end]
        live -= self.in_place[start:end] * (self.in_place_first[start:end] >= start)
        low, high = self.live_ranges[1].searchsorted((start, end))
        crossed = (self.live_ranges[0, low:high] < start).nonzero()[0] + low
        kept = np.zeros(end - start + 1, np.int64)  # tensors of the cut that the operators before this one read last
        if len(crossed):
            np.add.at(kept, self.live_ranges[1, crossed] + 1 - start, self.live_ranges[2, crossed])
            kept = kept.cumsum()
            live += kept[:-1]
        if self.reorder_in is not None and self.reorder_out is not None:
            at_end = kept[1:] + self.crossing[start + 1 : end + 1] + self.reorder_out[start + 1 : end + 1]
            live = np.maximum(live, at_end) + self.reorder_in[start]
        live += self.input_bytes
        return live if self.tuned is None else np.maximum(live, self.tuned.live_from(start, end))

    def activations_from(self, start: int, end: int | None = None) -> Bytes:
        """Return the most live bytes, workspace included, of the partitions ``[start, stop)`` for stop = start+1 .. end."""
        return np.maximum.accumulate(self.live_from(start, end))

    def peaks_from(self, start: int, end: int | None = None) -> Bytes:
        """Return the predicted process peak of the partitions ``[start, stop)`` for stop = start+1 .. end; never falls."""
        return self.process_bytes + self.weights_from(start, end) + self.activations_from(start, end)

    def peak(self, start: int, stop: int) -> int:
        """Return the predicted process peak of the partition ``[start, stop)``; it is computed once."""
        if (start, stop) not in self._peaks:
            self._peaks[start, stop] = int(self.peaks_from(start, stop)[-1])
        return self._peaks[start, stop]

    def alone(self) -> Bytes:
        """Return the predicted process peak of every operator as a partition of its own."""
        resident = self.resident.copy()
        np.add.at(resident, self.shared[0], self.shared[2])
        live = self.live + self.workspace
        if self.reorder_in is not None and self.reorder_out is not None:
            live = np.maximum(live, self.live + self.reorder_out[1:]) + self.reorder_in[:-1]
        found = self.process_bytes + self.input_bytes + resident + live
        return found if self.tuned is None else np.maximum(found, self.tuned.alone())


def costs(graph: Graph, footprints: Mapping[str, Footprint], process_bytes: int = 0) -> Costs:
    """Return a graph's footprints added up in its execution order.

    ``process_bytes`` is what the process holds without weights and activations.
    """
    ranges = live_ranges(graph)
    count = len(graph.operators)
    prints = [footprints[operator.name] for operator in graph.operators]
    resident = _array(each.copied_bytes + NODE_BYTES for each in prints)
    previous: dict[str | Weight, int] = {}
    shared = []
    for index, operator in enumerate(graph.operators):
        for name in operator.weights:
            weight = graph.weights[name]
            key, nbytes = weight.storage or name, resident_bytes(weight)
            if key not in previous:
                resident[index] += nbytes
            elif previous[key] != index:
                shared.append((index, previous[key], nbytes))
            previous[key] = index
    spans = [(live.first, live.last, graph.tensors[name].nbytes) for name, live in ranges.items()]
    written = sorted((span for span in spans if span[0] >= 0), key=itemgetter(1))
    return Costs(
        process_bytes=process_bytes,
        resident=resident,
        shared=_columns(shared),
        live=_sums(written, count)[1],
        workspace=_array(each.workspace_bytes for each in prints),
        in_place=_array(each.in_place_bytes for each in prints),
        in_place_first=_array(_first(ranges, each.in_place_input) for each in prints),
        crossing=_sums(spans, count)[0],
        input_bytes=sum(graph.tensors[name].nbytes for name in graph.inputs),
        live_ranges=_columns(written),
    )


def _array(values: Iterable[int | tuple[int, ...]]) -> Bytes:
    return np.array(list(values), np.int64)


def _columns(rows: Iterable[tuple[int, int, int]]) -> Bytes:
    return np.ascontiguousarray(_array(rows).reshape(-1, 3).T)


def _first(ranges: Mapping[str, LiveRange], name: str | None) -> int:
    return ranges[name].first if name is not None else -1


def _sums(spans: Iterable[tuple[int, int, int]], count: int) -> tuple[Bytes, Bytes]:
    """Return the bytes across every cut position (0..count), and those live at every operator (0..count-1)."""
    crossing, live = np.zeros(count + 2, np.int64), np.zeros(count + 2, np.int64)
    for first, last, nbytes in spans:
        crossing[first + 1] += nbytes
        crossing[min(last, count) + 1] -= nbytes
        live[max(first, 0)] += nbytes
        live[min(last, count) + 1] -= nbytes
    return np.cumsum(crossing)[: count + 1], np.cumsum(live)[:count]
