"""Follow one inference: which sub-bundles can run, given the tensors that are there, and which tensors are needed no more.

This is the executor's schedule read as a graph: a sub-bundle runs as soon as its inputs are there, so that shards of one
operator run side by side and partitions in sequence (Kaboubi, section 3.3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary


class SubBundleGraph:
    """The sub-bundles of a bundle, with the tensors that each reads and makes.

    ``runs`` are their steps: consecutive ranges that cover the schedule in order.
    """

    def __init__(self, manifest: Manifest, runs: Sequence[range]) -> None:
        assert [index for run in runs for index in run] == [*range(len(manifest.steps))]
        self.inputs, self.outputs = zip(*(boundary(manifest, run) for run in runs), strict=True)
        self.input_bytes = tuple(sum(manifest.tensors[name].nbytes for name in names) for names in self.inputs)
        output_bytes = (sum(manifest.tensors[name].nbytes for name in names) for names in self.outputs)
        #: The bytes that a lease of each sub-bundle moves.
        self.moved_bytes = tuple(map(sum, zip(self.input_bytes, output_bytes, strict=True)))
        self.results = tuple(output.name for output in manifest.outputs)
        self.runs = tuple(runs)


class DataFlow:
    """The progress of one inference: the names of the tensors that are there, and the sub-bundles that are done."""

    def __init__(self, graph: SubBundleGraph, there: Iterable[str]) -> None:
        self._graph = graph
        self.there = set(there)
        self.done: set[int] = set()

    @property
    def finished(self) -> bool:
        """Whether every output of the model is there."""
        return self.there.issuperset(self._graph.results)

    def ready(self, arriving: Iterable[str] = ()) -> tuple[int, ...]:
        """Return the sub-bundles that are not done and whose inputs are there or ``arriving``, in schedule order."""
        available = self.there.union(arriving)
        return tuple(
            number
            for number, inputs in enumerate(self._graph.inputs)
            if number not in self.done and available.issuperset(inputs) and not self._is_useless(number)
        )

    def complete(self, sub_bundle: int) -> tuple[str, ...]:
        """Mark a sub-bundle as done; drop the tensors that are needed no more, and return their names."""
        self.done.add(sub_bundle)
        self.there.update(self._graph.outputs[sub_bundle])
        needed = set(self._graph.results)
        for number, inputs in enumerate(self._graph.inputs):
            if number not in self.done:
                needed.update(inputs)
        released = tuple(sorted(self.there - needed))
        self.there.difference_update(released)
        return released

    def _is_useless(self, sub_bundle: int) -> bool:
        """Return whether nothing reads the outputs of a sub-bundle: then it need not run."""
        return not self._graph.outputs[sub_bundle]
