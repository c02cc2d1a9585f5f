"""How far one inference has come: which shares can run, given which tensors are there, and which tensors nobody needs.

The same schedule as the executor's loop, read as a graph: a share runs as soon as its inputs are there, so that shards of
one operator run side by side and partitions one after the other (Kaboubi, section 3.3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary


class ShareGraph:
    """What every share of a bundle reads and makes; the shares are runs of steps that cover the schedule in order."""

    def __init__(self, manifest: Manifest, runs: Sequence[range]) -> None:
        assert [index for run in runs for index in run] == [*range(len(manifest.steps))]
        self.inputs, self.outputs = zip(*(boundary(manifest, run) for run in runs), strict=True)
        self.results = tuple(output.name for output in manifest.outputs)
        self.runs = tuple(runs)


class Flow:
    """One inference's progress. Tensors are names here: where their bytes are is the caller's matter."""

    def __init__(self, graph: ShareGraph, there: Iterable[str]) -> None:
        self._graph = graph
        self.there = set(there)
        self.done: set[int] = set()

    @property
    def finished(self) -> bool:
        """Every output of the model is there."""
        return self.there.issuperset(self._graph.results)

    def ready(self, arriving: Iterable[str] = ()) -> tuple[int, ...]:
        """Shares that are not done and whose inputs are all there or ``arriving``, in the order of the schedule."""
        there = self.there.union(arriving)
        return tuple(
            index
            for index, inputs in enumerate(self._graph.inputs)
            if index not in self.done and there.issuperset(inputs) and not self._useless(index)
        )

    def complete(self, share: int) -> tuple[str, ...]:
        """A share's outputs are all there; the tensors that nobody needs any more, which are there no longer."""
        self.done.add(share)
        self.there.update(self._graph.outputs[share])
        needed = set(self._graph.results)
        for index, inputs in enumerate(self._graph.inputs):
            if index not in self.done:
                needed.update(inputs)
        released = tuple(sorted(self.there - needed))
        self.there.difference_update(released)
        return released

    def _useless(self, index: int) -> bool:
        """A share whose outputs nobody reads need not run."""
        return not self._graph.outputs[index]
