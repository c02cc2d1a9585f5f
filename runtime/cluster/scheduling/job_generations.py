"""Keep the generations of a placement, so that the runs of steps can change while jobs are under way.

Each job belongs to one *generation*, whose sub-bundles compute it to its end. New jobs belong to the newest. Two generations
live side by side until the older has no jobs left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.jobs import Backlog, Job
from hyps.runtime.cluster.scheduling.lease_ends import LeaseEnds
from hyps.runtime.cluster.scheduling.leases import LeaseTable
from hyps.runtime.cluster.scheduling.lifecycle import Event
from hyps.runtime.cluster.scheduling.replicas import Replicas


class Generations:
    """The generations of one scheduler's sub-bundles; the graph's first one is called ``first``.

    ``numbers`` are the sub-bundles of each, in schedule order; new jobs belong to ``newest``.
    """

    def __init__(
        self,
        first: int,
        graph: SubBundleGraph,
        jobs: Mapping[str, Job],
        replicas: Replicas,
        backlog: Backlog,
        leases: LeaseTable,
        ends: LeaseEnds,
    ) -> None:
        self.numbers: dict[int, tuple[int, ...]] = {first: graph.first}
        self.newest = first
        self._graph, self._jobs, self._replicas = graph, jobs, replicas
        self._backlog, self._leases, self._ends = backlog, leases, ends

    def live(self) -> Iterator[tuple[int, ...]]:
        """Yield the sub-bundles of each generation that jobs belong to, or that new jobs will."""
        for generation in {self.newest, *(job.generation for job in self._jobs.values())}:
            yield self.numbers[generation]

    def add(self, generation: int, runs: Mapping[int, range]) -> None:
        """Add a generation: its runs in schedule order by number. No job belongs to it before `activate`."""
        self.numbers[generation] = self._graph.add(runs)
        for number in runs:
            self._replicas.homes.setdefault(number, ())

    def activate(self, generation: int) -> None:
        """Have new jobs belong to this generation."""
        assert generation in self.numbers
        self.newest = generation

    def is_drained(self, generation: int) -> bool:
        """Return whether no job belongs to a generation."""
        return all(job.generation != generation for job in self._jobs.values())

    def drop(self, generation: int) -> tuple[int, ...]:
        """Forget a generation that has no jobs; return its sub-bundles that are in no other."""
        assert generation != self.newest
        assert self.is_drained(generation)
        gone = self.numbers.pop(generation)
        kept = {number for numbers in self.numbers.values() for number in numbers}
        dropped = tuple(number for number in gone if number not in kept)
        for number in dropped:
            for lease in [*self._leases.running.values()]:
                if lease.key.sub_bundle == number:
                    self._ends.end(lease, Event.FAIL)  # its job has ended
            self._replicas.drop(number)
            self._backlog.drop(number)
            self._graph.drop(number)
        return dropped
