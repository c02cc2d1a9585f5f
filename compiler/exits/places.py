"""Find the places in a network where an exit can be attached, and propose the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from hyps.compiler.errors import OptionError
from hyps.compiler.exits.network import ClassifierGraph
from hyps.passes.cost.compute import multiply_adds
from hyps.runtime.suggestions import did_you_mean

#: Candidates that are tried for a proposal.
MOST_CANDIDATES = 24
#: An exit before this share of the multiply-adds knows too little, one after the other saves too little.
_EARLIEST, _LATEST = 0.02, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitPlace:
    """A tensor on whose features an exit can decide; ``share`` of the network's multiply-adds come before it.

    ``crossing_bytes`` are those of the tensor, if it alone crosses there; None if others do as well.
    """

    tensor: str
    operator: str
    shape: tuple[int, ...]
    share: float
    crossing_bytes: int | None

    @property
    def features(self) -> int:
        """The number of values after pooling: channels of a feature map, or the last axis of a sequence or vector."""
        return self.shape[1] if len(self.shape) > 3 else self.shape[-1]


def named_places(network: ClassifierGraph, names: Sequence[str]) -> list[ExitPlace]:
    """Return the places after the operators ``names``, in order of depth; a tensor's name will do as well.

    Raises `OptionError` for a name that is none, and for a place that is not between the input and the last output.
    """
    places = {name: place for place in all_places(network) for name in (place.tensor, place.operator)}
    for name in names:
        if name not in places:
            known = ", ".join(sorted({place.operator for place in places.values() if place.crossing_bytes}))[:300]
            raise OptionError(
                f"--after: {name!r} is no operator between the input and the last output whose result has features; "
                f"{did_you_mean(name, places)}there are {known}"
            )
    found = {places[name].tensor: places[name] for name in names}
    order = {tensor: index for index, operator in enumerate(network.graph.operators) for tensor in operator.outputs}
    return sorted(found.values(), key=lambda place: order[place.tensor])


def all_places(network: ClassifierGraph) -> list[ExitPlace]:
    """Return every float32 tensor between input and last output that the model's file has, as a place for an exit."""
    graph = network.graph
    written = {name: node.name or name for node in network.proto.graph.node for name in node.output if name}
    work = np.cumsum([multiply_adds(graph, operator) for operator in graph.operators])
    writers = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    end = writers[graph.outputs[-1]]
    before = nx.ancestors(graph.dag, end)
    fed = [index for index, operator in enumerate(graph.operators) if network.input_name in operator.inputs]
    after = set(fed).union(*(nx.descendants(graph.dag, index) for index in fed))
    alone = _alone(network)
    places = []
    for index in sorted(before & after):
        for tensor in graph.operators[index].outputs:
            value = graph.tensors.get(tensor)
            if value is None or tensor not in written or value.dtype != "float32" or tensor in graph.outputs:
                continue
            if not 2 <= len(value.shape) <= 5 or value.shape[0] != 1:
                continue
            places.append(
                ExitPlace(
                    tensor=tensor,
                    operator=written[tensor],
                    shape=value.shape,
                    share=float(work[index] / max(work[-1], 1)),
                    crossing_bytes=value.nbytes if tensor in alone else None,
                )
            )
    return places


def candidate_places(network: ClassifierGraph) -> list[ExitPlace]:
    """Return up to `MOST_CANDIDATES` places where one small tensor crosses, spread over the network's depth."""
    fit = [each for each in all_places(network) if each.crossing_bytes and _EARLIEST <= each.share <= _LATEST]
    spans: dict[int, ExitPlace] = {}
    for place in fit:
        span = int(place.share * MOST_CANDIDATES)
        best = spans.get(span)
        if best is None or (place.crossing_bytes or 0) <= (best.crossing_bytes or 0):
            spans[span] = place
    if not spans:
        raise OptionError(f"{network.path} has no place where one tensor crosses; name operators with --after")
    return list(spans.values())


def best_places(places: Sequence[ExitPlace], accuracies: Sequence[float], count: int) -> list[ExitPlace]:
    """Return the ``count`` places that save most multiply-adds if an input leaves at the first exit that is right.

    What a place adds is the accuracy that it gains over the one before, times the multiply-adds that remain after it.
    """
    count = min(count, len(places))

    def saved(chosen: tuple[int, ...]) -> float:
        total, so_far = 0.0, 0.0
        for index in chosen:
            total += max(0.0, accuracies[index] - so_far) * (1 - places[index].share)
            so_far = max(so_far, accuracies[index])
        return total

    chosen: tuple[int, ...] = ()
    for _ in range(count):  # greedy, then exchange one at a time until nothing improves
        left = [index for index in range(len(places)) if index not in chosen]
        chosen = max((tuple(sorted((*chosen, index))) for index in left), key=saved)
    while True:
        exchanged = [
            tuple(sorted({*chosen} - {out} | {new}))
            for out, new in itertools.product(chosen, range(len(places)))
            if new not in chosen
        ]
        best = max(exchanged, key=saved, default=chosen)
        if saved(best) <= saved(chosen) + 1e-9:
            return [places[index] for index in chosen]
        chosen = best


def _alone(network: ClassifierGraph) -> set[str]:
    """Return the tensors that are all that crosses between two operators, in the model's order."""
    graph = network.graph
    last_read = {name: index for index, operator in enumerate(graph.operators) for name in operator.inputs}
    live: set[str] = set(graph.inputs)
    alone: set[str] = set()
    for index, operator in enumerate(graph.operators):
        live |= {name for name in operator.outputs if last_read.get(name, -1) > index}
        live -= {name for name in operator.inputs if last_read[name] <= index}
        if len(live) == 1:
            alone |= live
    return alone
