"""Choose which worker computes which sub-bundle of which job next.

A worker has few leases at a time: enough that its next input is there when it finishes one, and no more, so that inputs do
not pile up in the hub's memory (back-pressure). The oldest job goes first, so that many jobs form a pipeline. A worker that
rereads weights at every change of sub-bundle computes one sub-bundle for several jobs before it changes (Kaboubi, section
3.3.1.3, Algorithm 3).

The homes of a *dealt* sub-bundle share its inputs (data parallelism): each job is leased to one of them, to the one with the
fewest leases first, and to another only if that lease ends without a result.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.jobs import Backlog, Job
from hyps.runtime.cluster.scheduling.leases import LeaseTable
from hyps.runtime.cluster.scheduling.replicas import Replicas

#: The number of leases that a worker has at a time.
LEASE_WINDOW = 2
#: The most bytes that the inputs and outputs of all running leases have; one lease may have more if no other runs. It bounds
#: what the manager and the hub hold.
LEASED_BYTES = 512 << 20
#: A worker that streams weights computes one sub-bundle for at most this many jobs before another's turn.
MAX_BATCH = 16


class Assignment(NamedTuple):
    """A sub-bundle of a job, and the worker that is to compute it."""

    job: Job
    sub_bundle: int
    worker: str


class Dispatcher:
    """The order in which the workers of one deployment get leases."""

    def __init__(self, graph: SubBundleGraph, replicas: Replicas, backlog: Backlog, leases: LeaseTable) -> None:
        self._graph, self._replicas, self._backlog, self._leases = graph, replicas, backlog, leases
        #: By worker: the sub-bundle that it computed last, and for how many jobs in a row.
        self._turns: dict[str, tuple[int, int]] = {}

    def assignments(
        self, speeds: Mapping[str, float], windows: Mapping[str, int], streaming: AbstractSet[str]
    ) -> Iterator[Assignment]:
        """Yield what workers are to compute now; the caller leases each before it asks for the next.

        ``speeds``: of workers with equally many leases, the fastest gets the next. ``windows``: the most leases at a time of
        each worker whose number is not LEASE_WINDOW. ``streaming``: the workers that reread weights.
        """
        counts = self._leases.counts()
        moved = self._graph.moved_bytes
        leased_bytes = sum(moved[lease.key.sub_bundle] for lease in self._leases.running.values())
        workers = {home for homes in self._replicas.homes.values() for home in homes}
        fastest = sorted(workers, key=lambda worker: (-speeds.get(worker, 0.0), worker))
        # the worker with the fewest leases first: inputs that are dealt out go to workers that are free
        turns = [(counts[worker], place, worker) for place, worker in enumerate(fastest)]
        heapq.heapify(turns)
        while turns:
            count, place, worker = heapq.heappop(turns)
            if count >= windows.get(worker, LEASE_WINDOW):
                continue
            held = [number for number in self._replicas.sub_bundles_of(worker) if self._replicas.can_infer(number, worker)]
            held = [number for number in held if not leased_bytes or leased_bytes + moved[number] <= LEASED_BYTES]
            if (chosen := self._next(worker, held, is_streaming=worker in streaming)) is None:
                continue
            leased_bytes += moved[chosen.sub_bundle]
            yield chosen
            heapq.heappush(turns, (count + 1, place, worker))

    def _next(self, worker: str, held: Sequence[int], *, is_streaming: bool) -> Assignment | None:
        """Return what a worker computes next, of the sub-bundles that it holds."""
        oldest = {number: job for number in held if (job := self._oldest(worker, number))}
        if not oldest:
            return None
        last, taken = self._turns.get(worker, (-1, 0))
        if not is_streaming:
            chosen = min(oldest, key=lambda number: (oldest[number].number, number))
        elif last in oldest and taken < MAX_BATCH:
            chosen = last
        else:
            chosen = min(oldest, key=lambda number: (number - last - 1) % (max(self._graph.runs) + 1))
        self._turns[worker] = (chosen, taken + 1 if chosen == last else 1)
        return Assignment(job=oldest[chosen], sub_bundle=chosen, worker=worker)

    def _oldest(self, worker: str, sub_bundle: int) -> Job | None:
        """Return the oldest job that waits for a sub-bundle and that this worker may be asked to compute.

        It was not asked before, and if inputs are dealt out, no other worker was.
        """
        is_dealt = sub_bundle in self._replicas.dealt
        for job in self._backlog.of(sub_bundle):
            asked = job.asked[sub_bundle]
            if not asked if is_dealt else worker not in asked:
                return job
        return None
