"""Find the tensors and the bytes that cross into and out of steps, for one set of steps and for all runs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.cluster.planning.problem import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUse:
    """The steps that make and read a tensor.

    ``maker`` is the number of the step that makes it, -1 for an input of the network. ``readers`` are in ascending order.
    ``is_output``: it is an output of the network.
    """

    nbytes: int
    maker: int
    readers: tuple[int, ...]
    is_output: bool


def tensor_uses(workload: Workload) -> dict[str, TensorUse]:
    """Return the uses of every tensor by name; a tensor that nobody makes is taken as an input of the network."""
    makers = {name: number for number, step in enumerate(workload.steps) for name in step.outputs}
    readers: dict[str, list[int]] = {name: [] for name in (*workload.inputs, *makers)}
    for number, step in enumerate(workload.steps):
        for name in dict.fromkeys(step.inputs):
            readers.setdefault(name, []).append(number)
    outputs = set(workload.outputs)
    return {
        name: TensorUse(
            nbytes=workload.tensor_bytes[name],
            maker=makers.get(name, -1),
            readers=tuple(numbers),
            is_output=name in outputs,
        )
        for name, numbers in readers.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The names of the tensors that some steps read from others, and those that they make for others or for the user."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def crossing(workload: Workload, uses: Mapping[str, TensorUse], steps: Iterable[int]) -> Crossing:
    """Return the tensors that cross into and out of a set of steps."""
    own = set(steps)
    read = dict.fromkeys(name for number in sorted(own) for name in workload.steps[number].inputs)
    made = dict.fromkeys(name for number in sorted(own) for name in workload.steps[number].outputs)
    return Crossing(
        inputs=tuple(name for name in read if uses[name].maker not in own),
        outputs=tuple(name for name in made if uses[name].is_output or not own.issuperset(uses[name].readers)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBytes:
    """The bytes, or what they cost, that cross into and out of every run of steps: entry [start, stop], start < stop."""

    inputs: NDArray[np.float64]
    outputs: NDArray[np.float64]


def _bytes(nbytes: int) -> float:
    return nbytes


def run_bytes(workload: Workload, uses: Mapping[str, TensorUse], cost: Callable[[int], float] = _bytes) -> RunBytes:
    """Return the bytes that cross into and out of every run, in time that grows with tensors plus runs.

    With ``cost`` it is the sum of what that returns for each tensor's bytes.

    A tensor crosses into the runs whose first reader of it comes after its maker, and out of those that end before its last
    reader: rectangles in the plane of starts and stops, which are added as differences.
    """
    count = len(workload.steps)
    inputs, outputs = np.zeros((count + 1, count + 2)), np.zeros((count + 1, count + 2))
    for use in uses.values():
        after = use.maker
        for reader in use.readers:
            _add(inputs, range(after + 1, reader + 1), range(reader + 1, count + 1), cost(use.nbytes))
            after = reader
        if use.maker >= 0 and (use.is_output or use.readers):
            last = count if use.is_output else use.readers[-1]
            _add(outputs, range(use.maker + 1), range(use.maker + 1, last + 1), cost(use.nbytes))
    sums = [np.cumsum(np.cumsum(each, 0), 1)[:count, : count + 1] for each in (inputs, outputs)]
    return RunBytes(inputs=sums[0], outputs=sums[1])


def _add(differences: NDArray[np.float64], starts: range, stops: range, nbytes: float) -> None:
    """Add bytes to a rectangle of the sums of ``differences``."""
    if not starts or not stops:
        return
    differences[starts.start, stops.start] += nbytes
    differences[starts.stop, stops.start] -= nbytes
    differences[starts.start, stops.stop] -= nbytes
    differences[starts.stop, stops.stop] += nbytes
