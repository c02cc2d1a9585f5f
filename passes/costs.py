"""The predicted memory of any run of consecutive operators, as arrays over the execution order.

The process peak of a partition that runs operators ``start .. stop-1`` is

    process + weights of these operators + the most that is live while they run,

where *live* holds every tensor that crosses the cut at ``start`` until the step ends (the executor owns a session's inputs
while it runs, and keeps what later steps need), what the partition itself produced and still needs, and the workspace of
the operator that runs. DESIGN.md section 5 measured the sum to hold within 3 % of VmHWM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyps.passes.footprint import NODE_BYTES, Footprint, mapped_bytes
from hyps.passes.graph import Graph
from hyps.passes.liveness import Lifetime, lifetimes

Bytes = NDArray[np.int64]

#: Resident bytes of a ``hyps-run`` process with its libraries, Pillow's included, apart from a step's weights and
#: activations. Method: over the reference networks at budgets of 64 to 512 MB, x86-64, onnxruntime 1.31, the largest
#: VmHWM less weights and activations is 55.5 MB with tensors and 58.3 MB with a photograph; rounded up for what varies
#: between machines.
PROCESS_BYTES = 61_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Per operator and cut, what `peaks` adds up. Arrays are indexed by operator, ``crossing`` by cut position."""

    resident: Bytes
    shared: tuple[tuple[int, int, int], ...]
    live: Bytes
    workspace: Bytes
    reused: Bytes
    reused_born: Bytes
    crossing: Bytes
    lives: tuple[tuple[int, int, int], ...]

    @property
    def count(self) -> int:
        """The number of operators."""
        return len(self.live)

    def weights_from(self, start: int) -> Bytes:
        """Resident weights of the partitions ``[start, stop)`` for stop = start+1 .. count; each weight counts once."""
        resident = self.resident[start:].copy()
        for operator, previous, nbytes in self.shared:
            if previous < start <= operator:
                resident[operator - start] += nbytes
        return np.cumsum(resident)

    def activations_from(self, start: int) -> Bytes:
        """The most live bytes, workspace included, of the partitions ``[start, stop)`` for stop = start+1 .. count."""
        bypass = np.zeros(self.count - start + 1, np.int64)
        for born, last, nbytes in self.lives:
            if born < start <= last:
                bypass[0] += nbytes
                bypass[min(last + 1, self.count) - start] -= nbytes
        bypass = np.cumsum(bypass)[:-1]
        reused = np.where(self.reused_born[start:] >= start, self.reused[start:], 0)
        live = self.crossing[start] + self.live[start:] - bypass - reused + self.workspace[start:]
        return np.maximum.accumulate(live)

    def peaks_from(self, start: int) -> Bytes:
        """The predicted process peak of the partitions ``[start, stop)`` for stop = start+1 .. count; never falls."""
        return PROCESS_BYTES + self.weights_from(start) + self.activations_from(start)

    def alone(self, operator: int) -> int:
        """The predicted process peak of an operator that is a partition by itself."""
        return int(self.peaks_from(operator)[0])


def costs(graph: Graph, footprints: Mapping[str, Footprint]) -> Costs:
    """Add up a graph's footprints in its execution order."""
    lives = lifetimes(graph)
    count = len(graph.operators)
    prints = [footprints[operator.name] for operator in graph.operators]
    resident = np.array([p.copied_bytes + NODE_BYTES for p in prints], np.int64).reshape(count)
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
    spans = tuple((life.born, life.last, graph.tensors[name].nbytes) for name, life in lives.items())
    crossing, live = _sums(spans, count)
    return Costs(
        resident=resident,
        shared=tuple(shared),
        live=live,
        workspace=np.array([p.workspace_bytes for p in prints], np.int64),
        reused=np.array([p.reused_bytes for p in prints], np.int64),
        reused_born=np.array([_born(lives, p.reused) for p in prints], np.int64),
        crossing=crossing,
        lives=spans,
    )


def _born(lives: Mapping[str, Lifetime], name: str | None) -> int:
    return lives[name].born if name is not None else -1


def _sums(spans: tuple[tuple[int, int, int], ...], count: int) -> tuple[Bytes, Bytes]:
    """Bytes across every cut position (0..count) and live at every operator (0..count-1)."""
    crossing, live = np.zeros(count + 2, np.int64), np.zeros(count + 2, np.int64)
    for born, last, nbytes in spans:
        crossing[born + 1] += nbytes
        crossing[min(last, count) + 1] -= nbytes
        live[max(born, 0)] += nbytes
        live[min(last, count) + 1] -= nbytes
    return np.cumsum(crossing)[: count + 1], np.cumsum(live)[:count]
