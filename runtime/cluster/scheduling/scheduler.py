"""Who computes what next: jobs and leases, without a clock, a disk or a network of its own.

A share of a job is *leased* to each worker that holds it, until a deadline; the first answer counts. When the deadline is
past or the worker is gone, the lease ends and the share is leased again, as another attempt; what an older one still sends
is as good, for every attempt makes the same bits. A worker has few leases at a time: the next input is there when it is done
with the last, and no more wait in the hub's memory (back-pressure). The oldest job goes first, so that many jobs form a
pipeline; a worker that reads weights anew whenever it changes from one share to another computes a share for several jobs
before it takes the next (Kaboubi, section 3.3.1.3, Algorithm 3).

A share is leased as soon as its inputs have begun to arrive, so that they are passed on while they do; when the lease that
they come from fails, so does this one.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.frames import Dropped, Key
from hyps.runtime.cluster.scheduling.flow import Flow, ShareGraph
from hyps.runtime.cluster.scheduling.jobs import Backlog, Job
from hyps.runtime.cluster.scheduling.lifecycle import Event
from hyps.runtime.cluster.scheduling.replicas import Replicas

#: Leases of a worker at a time.
LEASE_WINDOW = 2
#: After so many attempts at one share that came to nothing, a job has failed.
MOST_FAILURES = 20
#: A worker that streams weights computes a share for at most so many jobs before another share's turn.
BATCH = 16
#: Leases that are remembered, so that a late answer is told from one that was never asked for.
_REMEMBERED = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A share of a job at a worker, until ``deadline``, in the seconds of whatever clock the caller has.

    ``fed``: which of its inputs were still arriving, each from another lease.
    """

    key: Key
    worker: str
    deadline: float
    fed: Mapping[str, Key] = field(default_factory=dict)


class Scheduler:
    """Attempts count from ``first_attempt``: another for every start of a manager, as workers drop what they know.

    With ``votes``, an answer that comes after a share is done is still taken: it is to be compared.
    """

    def __init__(self, graph: ShareGraph, *, lease_s: float, first_attempt: int = 0, votes: int = 1) -> None:
        self.graph = graph
        self.jobs: dict[str, Job] = {}
        self.holders = Replicas(len(graph.runs))
        #: Workers that read weights anew when they change from one share to another.
        self.streaming: frozenset[str] = frozenset()
        self.windows: Mapping[str, int] = {}  # of workers that take more leases at a time than others
        self._lease_s, self._first_attempt, self._votes = lease_s, first_attempt, votes
        self._count = 0
        self._backlog = Backlog(len(graph.runs))
        self._leases: dict[Key, Lease] = {}
        self._issued: OrderedDict[Key, str] = OrderedDict()
        self._turns: dict[str, tuple[int, int]] = {}

    @property
    def leases(self) -> Mapping[Key, Lease]:
        """The leases that run."""
        return self._leases

    def waiting(self, share: int) -> int:
        """How many jobs have a share's inputs, or begin to have them, and not its outputs."""
        return self._backlog.count(share)

    def add(self, job: str, client: str, tensors: Mapping[str, bytes], done: Iterable[int] = ()) -> Job:
        """A job that was accepted, or that goes on with what is there of it."""
        flow = Flow(self.graph, tensors)
        flow.done.update(done)
        flow.done.update(share for share, made in enumerate(self.graph.outputs) if made and flow.there.issuperset(made))
        self._count += 1
        self.jobs[job] = Job(job=job, client=client, number=self._count, flow=flow, tensors=dict(tensors))
        self._backlog.put(self.jobs[job])
        return self.jobs[job]

    def remove(self, job: str) -> None:
        """A job has its result, or never will; a worker that still computes it is busy until it answers."""
        if gone := self.jobs.pop(job, None):
            self._backlog.remove(gone)

    def lost(self, worker: str) -> list[int]:
        """A worker is gone: its leases end, and are given out again; the shares it had."""
        for lease in self._of(worker):
            self._forget(lease)
        return self.holders.lost(worker)

    def withdraw(self) -> None:
        """Shares have moved: what was sent to workers that hold them no more is given out again."""
        for lease in [*self._leases.values()]:
            if lease.key in self._leases and lease.worker not in self.holders.homes[lease.key.share]:
                self._forget(lease)

    def tasks(self, now: float) -> list[Lease]:
        """What is to be sent to workers now."""
        counts = Counter(lease.worker for lease in self._leases.values())
        found = []
        for worker in sorted({home for homes in self.holders.homes for home in homes}):
            if counts[worker] >= (window := self.windows.get(worker, LEASE_WINDOW)):
                continue
            shares = [share for share in self.holders.shares_of(worker) if self.holders.can_infer(share, worker)]
            while counts[worker] < window and (chosen := self._next(worker, shares)):
                found.append(self._lease(*chosen, worker, now + self._lease_s))
                counts[worker] += 1
        return found

    def expire(self, now: float) -> list[Lease]:
        """Leases whose deadline has passed end; `tasks` gives the shares out again."""
        found = [lease for lease in self._leases.values() if lease.deadline <= now]
        for lease in found:
            if lease.key in self._leases:  # else it ended with the one that it was fed by
                log.warning("%s did not answer in time: share %d of job %s", lease.worker, lease.key.share, lease.key.job)
                self._fail(lease)
        return found

    def release(self, worker: str) -> None:
        """What was sent to a worker may be lost: its leases end, and are given out again."""
        for lease in self._of(worker):
            self._forget(lease)

    def exhausted(self) -> list[tuple[str, int]]:
        """Jobs, and the share of each, that were tried too often."""
        return [
            (job.job, share)
            for job in self.jobs.values()
            for share, failures in job.failures.items()
            if failures >= MOST_FAILURES and share not in job.flow.done
        ]

    def check(self, worker: str, key: Key) -> None:
        """Raises `Dropped` where a worker sends what was never leased to it, or what is done: it is free then."""
        if self._issued.get(key) != worker:
            raise Dropped("never asked for")
        job = self.jobs.get(key.job)
        if self._votes == 1 and (job is None or key.share in job.flow.done):
            self.answered(key)
            raise Dropped("done already")

    def answered(self, key: Key) -> None:
        """A worker has computed what it was asked for."""
        if lease := self._leases.get(key):
            self._end(lease, Event.COMPUTED)

    def begun(self, key: Key, tensor: str) -> None:
        """The first of an output of a share arrived: what needs it need not wait for the rest."""
        job = self.jobs.get(key.job)
        if job and self._votes == 1 and key in self._leases and tensor not in {*job.arriving, *job.tensors}:
            job.arriving[tensor] = key
            self._backlog.put(job)

    def arrived(self, key: Key, tensor: str, digest: bytes) -> tuple[str, ...] | None:
        """An output of a share arrived: when all have, the tensors that nobody needs any more, else None."""
        job = self.jobs[key.job]
        if tensor not in job.tensors and job.arriving.get(tensor, key) != key:
            self._cut_off(job, tensor)
        job.tensors[tensor] = digest
        if not set(self.graph.outputs[key.share]) <= job.tensors.keys():
            return None
        self.answered(key)
        released = job.flow.complete(key.share)
        for name in self.graph.outputs[key.share]:
            job.arriving.pop(name, None)
        for name in released:
            job.tensors.pop(name, None)
        self._backlog.put(job)
        return released

    def failed(self, worker: str, key: Key) -> None:
        """An attempt came to nothing: another follows."""
        lease = self._leases.get(key)
        if lease and lease.worker == worker:
            self._fail(lease)

    def ask_again(self, key: Key) -> None:
        """The answers to a share are worth nothing: every worker is asked once more."""
        if job := self.jobs.get(key.job):
            job.failures[key.share] += 1
            at = (key.job, key.share)
            job.asked[key.share] &= {each.worker for each in self._leases.values() if (each.key.job, each.key.share) == at}

    def _next(self, worker: str, shares: Sequence[int]) -> tuple[Job, int] | None:
        """The share of a job that a worker is to compute next."""
        first = {share: job for share in shares if (job := self._first(worker, share))}
        if not first:
            return None
        last, taken = self._turns.get(worker, (-1, 0))
        if worker not in self.streaming:
            share = min(first, key=lambda each: (first[each].number, each))
        elif last in first and taken < BATCH:
            share = last
        else:
            share = min(first, key=lambda each: (each - last - 1) % len(self.graph.runs))
        self._turns[worker] = (share, taken + 1 if share == last else 1)
        return first[share], share

    def _first(self, worker: str, share: int) -> Job | None:
        """The oldest job whose share a worker was not asked for."""
        return next((job for job in self._backlog.of(share) if worker not in job.asked[share]), None)

    def _lease(self, job: Job, share: int, worker: str, deadline: float) -> Lease:
        key = Key(job=job.job, share=share, attempt=self._first_attempt + job.attempts[share])
        job.attempts[share] += 1
        job.asked[share].add(worker)
        fed = {name: job.arriving[name] for name in self.graph.inputs[share] if name not in job.tensors}
        self._leases[key] = Lease(key=key, worker=worker, deadline=deadline, fed=fed)
        self._issued[key] = worker
        if len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)
        self.holders.infer(share, worker)
        return self._leases[key]

    def _fail(self, lease: Lease) -> None:
        if job := self.jobs.get(lease.key.job):
            job.failures[lease.key.share] += 1
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        if job := self.jobs.get(lease.key.job):
            job.asked[lease.key.share].discard(lease.worker)
        self._end(lease, Event.FAIL)

    def _end(self, lease: Lease, event: Event) -> None:
        if not self._leases.pop(lease.key, None):
            return
        job = self.jobs.get(lease.key.job)
        if job and event is Event.FAIL and (cut := [name for name, key in job.arriving.items() if key == lease.key]):
            for name in cut:
                self._cut_off(job, name)
            self._backlog.put(job)
        share, worker = lease.key.share, lease.worker
        goes_on = any((each.key.share, each.worker) == (share, worker) for each in self._leases.values())
        self.holders.ended(share, worker, event, goes_on=goes_on)

    def _cut_off(self, job: Job, tensor: str) -> None:
        """What was arriving comes no more: leases that were fed with it end."""
        key = job.arriving.pop(tensor)
        for lease in [*self._leases.values()]:
            if lease.key.job == job.job and lease.fed.get(tensor) == key:
                self._forget(lease)

    def _of(self, worker: str) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.worker == worker]
