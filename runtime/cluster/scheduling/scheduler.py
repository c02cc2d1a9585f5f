"""Decide who computes what next: jobs and leases, without a clock, a disk or a network of its own.

A sub-bundle of a job is *leased* to each worker that holds it, until a deadline; the first result counts. When the deadline
has passed or the worker is gone, the lease ends and the sub-bundle is leased again, as another attempt. A result of an older
attempt counts too, as every attempt makes the same bits. `hyps.runtime.cluster.scheduling.dispatch` says which worker gets
which lease.

A sub-bundle is leased as soon as its inputs begin to arrive, and they are forwarded as they come. If the lease that makes
them fails, so does the lease that they feed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from hyps.runtime.bundle.coded_groups import unserved
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.scheduling.dispatch import Assignment, Dispatcher
from hyps.runtime.cluster.scheduling.flow import DataFlow, SubBundleGraph
from hyps.runtime.cluster.scheduling.job_generations import Generations
from hyps.runtime.cluster.scheduling.jobs import Backlog, Job
from hyps.runtime.cluster.scheduling.lease_ends import LeaseEnds
from hyps.runtime.cluster.scheduling.leases import Lease, LeaseTable
from hyps.runtime.cluster.scheduling.lifecycle import Event
from hyps.runtime.cluster.scheduling.replicas import Replicas

#: A job fails after this many failed attempts at one sub-bundle.
MAX_FAILURES = 20

_log = logging.getLogger(__name__)


class Scheduler:
    """The jobs and leases of one deployment.

    Attempts count from ``first_attempt``, which differs between starts of a manager: workers drop attempts that they know.
    With several ``votes``, a result is accepted even if its sub-bundle is done: it is compared with the winner.
    """

    def __init__(
        self, graph: SubBundleGraph, *, lease_s: float, first_attempt: int = 0, votes: int = 1, generation: int = 0
    ) -> None:
        self.graph = graph
        self.jobs: dict[str, Job] = {}
        self.replicas = Replicas(graph.first)
        #: The workers' speeds (`Dispatcher.assignments`).
        self.speeds: Mapping[str, float] = {}
        #: Workers that read weights again when they change to another sub-bundle.
        self.streaming: frozenset[str] = frozenset()
        #: The most leases at a time of each worker that takes more than LEASE_WINDOW.
        self.windows: Mapping[str, int] = {}
        self._lease_s, self._first_attempt, self._votes = lease_s, first_attempt, votes
        self._job_count = 0
        self._backlog = Backlog()
        self._leases = LeaseTable()
        self._dispatcher = Dispatcher(graph, self.replicas, self._backlog, self._leases)
        self._ends = LeaseEnds(self.jobs, self.replicas, self._backlog, self._leases)
        self.generations = Generations(generation, graph, self.jobs, self.replicas, self._backlog, self._leases, self._ends)

    @property
    def leases(self) -> Mapping[Key, Lease]:
        """The running leases by key."""
        return self._leases.running

    @property
    def ready(self) -> bool:
        """Whether each sub-bundle that a job may need is loaded by a worker, or can be decoded."""
        return not any(
            unserved(
                each, self.graph.groups(each), lambda number: self.replicas.are_loaded([number]), exact=self.has_exact_jobs
            )
            for each in self.generations.live()
        )

    @property
    def has_exact_jobs(self) -> bool:
        """Whether a job's result must not be decoded."""
        return any(job.exact for job in self.jobs.values())

    def waiting(self, sub_bundle: int) -> int:
        """Return how many jobs wait for a sub-bundle: its inputs are there or arriving, its outputs are not."""
        return self._backlog.count(sub_bundle)

    def add(
        self,
        job: str,
        client: str,
        tensors: Mapping[str, bytes],
        done: Iterable[int] = (),
        generation: int | None = None,
        *,
        exact: bool = False,
    ) -> Job:
        """Add an accepted job, or resume one with the tensors that are there and the sub-bundles that are ``done``.

        It belongs to the newest generation unless another is named. One parity shard is of no use for an ``exact`` result.
        """
        generation = self.generations.newest if generation is None else generation
        flow = DataFlow(self.graph, tensors, self.generations.numbers[generation])
        flow.done.update(done)
        if exact:
            groups = self.graph.groups(flow.numbers)
            flow.done.update(number for group in groups if not group.is_compared for number in group.parity)
        flow.done.update(
            number
            for number in flow.numbers
            if self.graph.outputs[number] and flow.there.issuperset(self.graph.outputs[number])
        )
        self._job_count += 1
        self.jobs[job] = Job(
            job=job,
            client=client,
            number=self._job_count,
            flow=flow,
            tensors=dict(tensors),
            generation=generation,
            exact=exact,
        )
        self._backlog.put(self.jobs[job])
        return self.jobs[job]

    def remove(self, job: str) -> None:
        """Remove a job that has ended; a worker that still computes it is busy until it answers."""
        if removed := self.jobs.pop(job, None):
            self._backlog.remove(removed)

    def lost(self, worker: str) -> list[int]:
        """Remove a lost worker: its leases end and are given out again. Return the sub-bundles it had."""
        self.release(worker)
        return self.replicas.lost(worker)

    def release(self, worker: str) -> None:
        """End the leases of a worker that may not have got its inputs; they are given out again."""
        for lease in self._leases.of(worker):
            self._ends.cancel(lease)

    def missing(self, worker: str, held: Iterable[int]) -> None:
        """Note what a worker holds: what it has loaded, and what it loads again, as inputs wait for that.

        The leases of other sub-bundles end: it has dropped their inputs. It gets no more until it has loaded them.
        """
        held = frozenset(held)
        for lease in self._leases.of(worker):
            if lease.key in self.leases and lease.key.sub_bundle not in held:
                self._ends.cancel(lease)
        self.replicas.missing(worker, held)

    def withdraw(self) -> None:
        """End the leases of sub-bundles that have moved to other workers; they are given out again."""
        for lease in [*self.leases.values()]:
            if lease.key in self.leases and lease.worker not in self.replicas.homes.get(lease.key.sub_bundle, ()):
                self._ends.cancel(lease)

    def tasks(self, now: float) -> list[Lease]:
        """Lease what workers are to compute now, and return the new leases."""
        assignments = self._dispatcher.assignments(self.speeds, self.windows, self.streaming)
        return [self._lease(assigned, now + self._lease_s) for assigned in assignments]

    def expire(self, now: float) -> list[Lease]:
        """End the leases whose deadline has passed, and return them; `tasks` gives their sub-bundles out again."""
        expired = [lease for lease in self.leases.values() if lease.deadline <= now]
        for lease in expired:
            if lease.key in self.leases:  # else it ended with the lease that fed it
                key = lease.key
                _log.warning("%s did not answer in time: sub-bundle %d of job %s", lease.worker, key.sub_bundle, key.job)
                self._ends.fail(lease)
        return expired

    def exhausted(self) -> list[tuple[str, int]]:
        """Return the jobs that failed too often, each with its sub-bundle."""
        return [
            (job.job, number)
            for job in self.jobs.values()
            for number, failures in job.failures.items()
            if failures >= MAX_FAILURES and number not in job.flow.done
        ]

    def check(self, worker: str, key: Key) -> None:
        """Raise `Rejection` for a result that was never leased to this worker, or whose sub-bundle is done.

        In the second case the worker has answered, and its lease ends.
        """
        if not self._leases.was_issued(key, worker):
            raise Rejection("never asked for")
        job = self.jobs.get(key.job)
        is_over = job is None or key.sub_bundle in job.flow.done
        if (self._votes == 1 and is_over) or key.sub_bundle not in self.graph.runs:
            self.answered(key)
            raise Rejection("done already")

    def answered(self, key: Key) -> None:
        """Note that a worker has computed its lease."""
        if lease := self.leases.get(key):
            self._ends.end(lease, Event.COMPUTED)

    def begun(self, key: Key, tensor: str) -> None:
        """Note that the first chunk of an output came: sub-bundles that read it can be leased now."""
        job = self.jobs.get(key.job)
        if job and self._votes == 1 and key in self.leases and tensor not in {*job.arriving, *job.tensors}:
            job.arriving[tensor] = key
            self._backlog.put(job)

    def arrived(self, key: Key, tensor: str, digest: bytes) -> tuple[str, ...] | None:
        """Note that an output is complete.

        Return None until all outputs of the sub-bundle are, then the tensors that are needed no more.
        """
        job = self.jobs[key.job]
        if tensor not in job.tensors and job.arriving.get(tensor, key) != key:
            self._ends.cut_off(job, tensor)
        job.tensors[tensor] = digest
        if not set(self.graph.outputs[key.sub_bundle]) <= job.tensors.keys():
            return None
        self.answered(key)
        released = job.flow.complete(key.sub_bundle)
        for name in self.graph.outputs[key.sub_bundle]:
            job.arriving.pop(name, None)
        for name in released:
            job.tensors.pop(name, None)
        self._backlog.put(job)
        return released

    def failed(self, worker: str, key: Key) -> None:
        """Note that a worker's attempt failed: another follows."""
        lease = self.leases.get(key)
        if lease and lease.worker == worker:
            self._ends.fail(lease)

    def skip(self, job: Job, sub_bundles: Iterable[int]) -> list[Lease]:
        """Have nobody compute sub-bundles of a job any more; return the leases of workers that do.

        These are busy until they answer, or confirm that they drop it.
        """
        sub_bundles = [*sub_bundles]
        job.flow.done.update(sub_bundles)
        self._backlog.put(job)
        return [lease for number in sub_bundles for lease in self._leases.at(job.job, number)]

    def withdrawn(self, worker: str, key: Key) -> None:
        """Note that a worker has dropped a lease that is needed no more. Raises `Rejection` for any other lease."""
        if not self._leases.was_issued(key, worker):
            raise Rejection("never asked for")
        job = self.jobs.get(key.job)
        if job and key.sub_bundle not in job.flow.done:
            raise Rejection("not withdrawn")
        self.answered(key)

    def ask_again_for(self, job: Job, sub_bundles: Iterable[int]) -> None:
        """Have workers compute sub-bundles of a job that are not done once more: their results were dropped."""
        for number in sub_bundles:
            job.asked[number] &= {each.worker for each in self._leases.at(job.job, number)}

    def is_behind(self, worker: str, sub_bundle: int) -> bool:
        """Return whether a worker still computes a sub-bundle for a job that does not need it any more."""
        jobs = (self.jobs.get(each.key.job) for each in self._leases.of(worker) if each.key.sub_bundle == sub_bundle)
        return any(job is None or sub_bundle in job.flow.done for job in jobs)

    def ask_again(self, key: Key) -> None:
        """Have every worker compute a sub-bundle once more: its results are worthless."""
        if job := self.jobs.get(key.job):
            job.failures[key.sub_bundle] += 1
            self.ask_again_for(job, [key.sub_bundle])

    def _lease(self, assigned: Assignment, deadline: float) -> Lease:
        job, sub_bundle, worker = assigned
        key = Key(job=job.job, sub_bundle=sub_bundle, attempt=self._first_attempt + job.attempts[sub_bundle])
        job.attempts[sub_bundle] += 1
        job.asked[sub_bundle].add(worker)
        fed = {name: job.arriving[name] for name in self.graph.inputs[sub_bundle] if name not in job.tensors}
        lease = Lease(key=key, worker=worker, deadline=deadline, fed=fed)
        self._leases.issue(lease)
        self.replicas.infer(sub_bundle, worker)
        return lease
