"""The predicted memory of any run of consecutive operators, as arrays over the execution order.

The process peak of a partition that runs operators ``start .. stop-1`` is

    process + weights of these operators + the most that is live while they run,

where *live* holds the model's inputs (their caller keeps them throughout), every tensor that crosses the cut at ``start``
until the step ends (the executor owns a session's inputs while it runs, and keeps what later steps need), what the
partition itself produced and still needs, and the workspace of the operator that runs. DESIGN.md section 5 measured the sum
to hold within 3 % of VmHWM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from hyps.passes.cost.footprint import NODE_BYTES, Footprint, mapped_bytes
from hyps.passes.cost.liveness import Lifetime, lifetimes
from hyps.passes.graph import Graph

Bytes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Per operator and cut, what `peaks_from` adds up.

    ``process_bytes`` is what the process holds by itself. ``resident``, ``live``, ``workspace``, ``reused`` and
    ``reused_born`` are indexed by operator, ``crossing`` by cut position. ``shared`` has a column for every further
    reader of a weight (operator, reader before it, bytes), by operator; ``deaths`` one for every tensor but the model's
    inputs (born, last, bytes), by ``last``. Both make the work of a partition proportional to its length, whatever lies
    before and behind it.
    """

    process_bytes: int
    resident: Bytes
    shared: Bytes
    live: Bytes
    workspace: Bytes
    reused: Bytes
    reused_born: Bytes
    crossing: Bytes
    input_bytes: int
    deaths: Bytes

    @property
    def count(self) -> int:
        """The number of operators."""
        return len(self.live)

    def weights_from(self, start: int, end: int | None = None) -> Bytes:
        """Resident weights of the partitions ``[start, stop)`` for stop = start+1 .. end; each weight counts once."""
        end = self.count if end is None else end
        first, last = np.searchsorted(self.shared[0], (start, end))
        operator, previous, nbytes = self.shared[:, first:last]
        again = previous < start
        resident = self.resident[start:end].copy()
        np.add.at(resident, operator[again] - start, nbytes[again])
        return np.cumsum(resident)

    def live_from(self, start: int, end: int | None = None) -> Bytes:
        """Live bytes, workspace included, while each of the operators ``start .. end-1`` runs in one session."""
        end = self.count if end is None else end
        first, last = np.searchsorted(self.deaths[1], (start, end - 1))
        born, died, nbytes = self.deaths[:, first:last]
        crossed = born < start
        kept = np.zeros(end - start, np.int64)  # tensors of the cut that the operators before this one read last
        np.add.at(kept, died[crossed] + 1 - start, nbytes[crossed])
        reused = np.where(self.reused_born[start:end] >= start, self.reused[start:end], 0)
        return self.input_bytes + np.cumsum(kept) + self.live[start:end] - reused + self.workspace[start:end]

    def activations_from(self, start: int, end: int | None = None) -> Bytes:
        """The most live bytes, workspace included, of the partitions ``[start, stop)`` for stop = start+1 .. end."""
        return np.maximum.accumulate(self.live_from(start, end))

    def peaks_from(self, start: int, end: int | None = None) -> Bytes:
        """The predicted process peak of the partitions ``[start, stop)`` for stop = start+1 .. end; never falls."""
        return self.process_bytes + self.weights_from(start, end) + self.activations_from(start, end)

    def alone(self) -> Bytes:
        """The predicted process peak of every operator as a partition by itself."""
        resident = self.resident.copy()
        np.add.at(resident, self.shared[0], self.shared[2])
        return self.process_bytes + self.input_bytes + resident + self.live + self.workspace


def costs(graph: Graph, footprints: Mapping[str, Footprint], process_bytes: int = 0) -> Costs:
    """Add up a graph's footprints in its execution order, in a process that holds so many bytes by itself."""
    lives = lifetimes(graph)
    count = len(graph.operators)
    prints = [footprints[operator.name] for operator in graph.operators]
    resident = _array(p.copied_bytes + NODE_BYTES for p in prints)
    previous: dict[str, int] = {}
    shared = []
    for index, operator in enumerate(graph.operators):
        for name in operator.weights:
            nbytes = mapped_bytes(graph.weights[name].nbytes)
            if name in previous:
                shared.append((index, previous[name], nbytes))
            else:
                resident[index] += nbytes
            previous[name] = index
    spans = [(life.born, life.last, graph.tensors[name].nbytes) for name, life in lives.items()]
    made = sorted((span for span in spans if span[0] >= 0), key=itemgetter(1))
    return Costs(
        process_bytes=process_bytes,
        resident=resident,
        shared=_columns(shared),
        live=_sums(made, count)[1],
        workspace=_array(p.workspace_bytes for p in prints),
        reused=_array(p.reused_bytes for p in prints),
        reused_born=_array(_born(lives, p.reused) for p in prints),
        crossing=_sums(spans, count)[0],
        input_bytes=sum(graph.tensors[name].nbytes for name in graph.inputs),
        deaths=_columns(made),
    )


def _array(values: Iterable[int | tuple[int, ...]]) -> Bytes:
    return np.array(list(values), np.int64)


def _columns(rows: Iterable[tuple[int, int, int]]) -> Bytes:
    return np.ascontiguousarray(_array(rows).reshape(-1, 3).T)


def _born(lives: Mapping[str, Lifetime], name: str | None) -> int:
    return lives[name].born if name is not None else -1


def _sums(spans: Iterable[tuple[int, int, int]], count: int) -> tuple[Bytes, Bytes]:
    """Bytes across every cut position (0..count) and live at every operator (0..count-1)."""
    crossing, live = np.zeros(count + 2, np.int64), np.zeros(count + 2, np.int64)
    for born, last, nbytes in spans:
        crossing[born + 1] += nbytes
        crossing[min(last, count) + 1] -= nbytes
        live[max(born, 0)] += nbytes
        live[min(last, count) + 1] -= nbytes
    return np.cumsum(crossing)[: count + 1], np.cumsum(live)[:count]
