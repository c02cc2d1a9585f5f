"""Follow one inference: which sub-bundles can run, given the tensors that are there, and which tensors are needed no more.

This is the executor's schedule read as a graph: a sub-bundle runs as soon as its inputs are there, so that shards of one
operator run side by side and partitions in sequence (Kaboubi, section 3.3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hyps.runtime.bundle.coded_groups import CodedGroup, coded_groups
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary


class SubBundleGraph:
    """The sub-bundles of a bundle by number, with the tensors that each reads and makes.

    ``runs`` are their steps: consecutive ranges that cover the schedule in order. They are the first *generation*. Others
    that `add` adds cover the schedule, too, and may share runs with those before: a run has one number, whatever
    generations it is in. ``moved_bytes`` are the bytes that a lease of each sub-bundle moves. ``margin``: see
    `CodedGroup`.
    """

    def __init__(
        self, manifest: Manifest, runs: Sequence[range], numbers: Sequence[int] | None = None, margin: int = 0
    ) -> None:
        self._manifest, self._margin = manifest, margin
        self.runs: dict[int, range] = {}
        self.inputs: dict[int, tuple[str, ...]] = {}
        self.outputs: dict[int, tuple[str, ...]] = {}
        self.input_bytes: dict[int, int] = {}
        self.moved_bytes: dict[int, int] = {}
        self.results = tuple(output.name for output in manifest.outputs)
        self._groups: dict[tuple[int, ...], tuple[CodedGroup, ...]] = {}
        self.first = self.add(dict(zip(range(len(runs)) if numbers is None else numbers, runs, strict=True)))

    def add(self, runs: Mapping[int, range]) -> tuple[int, ...]:
        """Add the runs of a generation by number, in schedule order; return the numbers."""
        assert [index for run in runs.values() for index in run] == [*range(len(self._manifest.steps))]
        for number, run in runs.items():
            self.runs[number] = run
            self.inputs[number], self.outputs[number] = boundary(self._manifest, run)
            sizes = [
                sum(self._manifest.tensors[name].nbytes for name in names)
                for names in (self.inputs[number], self.outputs[number])
            ]
            self.input_bytes[number], self.moved_bytes[number] = sizes[0], sum(sizes)
        return tuple(runs)

    def groups(self, numbers: tuple[int, ...]) -> tuple[CodedGroup, ...]:
        """Return the coded groups of a generation, by its sub-bundles' numbers."""
        if numbers not in self._groups:
            outputs = {number: self.outputs[number] for number in numbers if len(self.runs[number]) == 1}
            self._groups[numbers] = coded_groups(self._manifest.codes, outputs, self._margin)
        return self._groups[numbers]

    def member(self, numbers: tuple[int, ...], sub_bundle: int) -> tuple[CodedGroup, int] | None:
        """Return the coded group of a generation's sub-bundle and its place in it, or None if it has none."""
        for group in self.groups(numbers):
            if sub_bundle in group.members:
                return group, group.members.index(sub_bundle)
        return None

    def drop(self, number: int) -> None:
        """Forget a sub-bundle that is in no generation any more."""
        self._groups = {numbers: groups for numbers, groups in self._groups.items() if number not in numbers}
        for facts in (self.runs, self.inputs, self.outputs, self.input_bytes, self.moved_bytes):
            del facts[number]


class DataFlow:
    """The progress of one inference: the names of the tensors that are there, and the sub-bundles that are done.

    ``numbers`` are the sub-bundles of the inference's generation, in schedule order; the first generation's by default.
    """

    def __init__(self, graph: SubBundleGraph, there: Iterable[str], numbers: tuple[int, ...] | None = None) -> None:
        self._graph = graph
        self.numbers = graph.first if numbers is None else numbers
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
            for number in self.numbers
            if number not in self.done and available.issuperset(self._graph.inputs[number]) and not self._is_useless(number)
        )

    def complete(self, sub_bundle: int) -> tuple[str, ...]:
        """Mark a sub-bundle as done; drop the tensors that are needed no more, and return their names."""
        self.done.add(sub_bundle)
        self.there.update(self._graph.outputs[sub_bundle])
        needed = set(self._graph.results)
        for number in self.numbers:
            if number not in self.done:
                needed.update(self._graph.inputs[number])
        released = tuple(sorted(self.there - needed))
        self.there.difference_update(released)
        return released

    def _is_useless(self, sub_bundle: int) -> bool:
        """Return whether nothing reads the outputs of a sub-bundle: then it need not run."""
        return not self._graph.outputs[sub_bundle]
