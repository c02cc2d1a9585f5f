"""Who computes what next: jobs, workers and leases, without a clock, a disk or a network of its own.

A share of a job is *leased* to the worker that holds it, until a deadline. When the deadline passes or the worker is gone,
the lease ends and the share is leased again, as another attempt; what an older attempt still sends is as good, for every
attempt makes the same bits. A worker has few leases at a time: the next input is there when it is done with the last, and no
more wait in the hub's memory (back-pressure).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hyps.runtime.cluster.flow import Flow, Graph
from hyps.runtime.cluster.frames import Dropped, Key
from hyps.runtime.cluster.lifecycle import READY, Event, LifeCycle, State

#: Leases of a worker at a time.
WINDOW = 2
#: After so many attempts at one share that came to nothing, a job has failed.
MOST_ATTEMPTS = 20

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Job:
    """An accepted inference; ``tensors`` are digests of what is there, by name."""

    job: str
    client: str
    flow: Flow
    tensors: dict[str, bytes]
    attempts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A share of a job at a worker, until ``deadline``, in the seconds of whatever clock the caller has."""

    key: Key
    worker: str
    deadline: float


class Scheduler:
    """The jobs and the shares' life cycles. ``homes`` says which worker holds which share.

    Attempts count from ``first_attempt``: another for every start of a manager, as workers drop what they know.
    """

    def __init__(self, graph: Graph, *, lease_s: float, first_attempt: int = 0) -> None:
        self.graph = graph
        self.jobs: dict[str, Job] = {}
        self.lives = [LifeCycle(f"share {number}") for number in range(len(graph.runs))]
        self.homes: list[str | None] = [None] * len(graph.runs)
        self._lease_s, self._first_attempt = lease_s, first_attempt
        self._leases: dict[tuple[str, int], Lease] = {}
        self._issued: dict[Key, str] = {}

    @property
    def leases(self) -> Mapping[tuple[str, int], Lease]:
        """The leases that run, by job and share."""
        return self._leases

    def place(self, homes: Mapping[int, str]) -> None:
        """Give shares their workers; a share that had another is lost there first."""
        for share, worker in homes.items():
            if self.homes[share] == worker and self.lives[share].state != State.LOST:
                continue
            if self.lives[share].allows(Event.LOSE):
                self._lose(share)
            self.lives[share].apply(Event.PLACE)
            self.homes[share] = worker
            log.info("share %d is placed on %s", share, worker)

    def loading(self, worker: str, shares: Iterable[int]) -> None:
        """A worker says that it is loading these."""
        for share in self._at(worker, shares):
            if self.lives[share].state == State.PLACED:
                self.lives[share].apply(Event.LOAD)

    def loaded(self, worker: str, shares: Iterable[int]) -> None:
        """A worker says that it has loaded these."""
        self.loading(worker, shares := [*shares])
        for share in self._at(worker, shares):
            if self.lives[share].state == State.LOADING:
                self.lives[share].apply(Event.LOADED)

    def lost(self, worker: str) -> list[int]:
        """A worker is gone, and all that it held; the shares that need another."""
        shares = [share for share, home in enumerate(self.homes) if home == worker]
        for share in shares:
            if self.lives[share].allows(Event.LOSE):
                self._lose(share)
            self.homes[share] = None
        return shares

    def add(self, job: str, client: str, tensors: Mapping[str, bytes], done: Iterable[int] = ()) -> Job:
        """A job that was accepted, or that goes on with what is there of it."""
        flow = Flow(self.graph, tensors)
        flow.done.update(done)
        flow.done.update(share for share, made in enumerate(self.graph.outputs) if made and flow.there.issuperset(made))
        self.jobs[job] = Job(job=job, client=client, flow=flow, tensors=dict(tensors))
        return self.jobs[job]

    def remove(self, job: str) -> None:
        """A job has its result, or never will."""
        self.jobs.pop(job, None)
        for key in [key for key in self._issued if key.job == job]:
            del self._issued[key]
        for place in [place for place in self._leases if place[0] == job]:
            self._end(place, Event.FAIL)

    def tasks(self, now: float) -> list[Lease]:
        """What is to be sent to workers now: the oldest job's shares first."""
        counts: dict[str, int] = {}
        for lease in self._leases.values():
            counts[lease.worker] = counts.get(lease.worker, 0) + 1
        found = []
        for job in self.jobs.values():
            for share in job.flow.ready():
                home = self.homes[share]
                if home is None or (job.job, share) in self._leases or counts.get(home, 0) >= WINDOW:
                    continue
                if self.lives[share].state not in READY | {State.INFERRING}:
                    continue
                attempt = job.attempts[share] = job.attempts.get(share, self._first_attempt - 1) + 1
                key = Key(job=job.job, share=share, attempt=attempt)
                lease = Lease(key=key, worker=home, deadline=now + self._lease_s)
                self._leases[job.job, share] = lease
                self._issued[key] = home
                counts[home] = counts.get(home, 0) + 1
                if self.lives[share].state != State.INFERRING:
                    self.lives[share].apply(Event.INFER)
                found.append(lease)
        return found

    def expire(self, now: float) -> list[Lease]:
        """Leases whose deadline has passed end; `tasks` gives the shares out again."""
        found = [lease for lease in self._leases.values() if lease.deadline <= now]
        for lease in found:
            log.warning("%s did not answer in time: share %d of job %s", lease.worker, lease.key.share, lease.key.job)
            self._end((lease.key.job, lease.key.share), Event.FAIL)
        return found

    def release(self, worker: str) -> None:
        """What was sent to a worker may be lost: its leases end, and are given out again."""
        for lease in [lease for lease in self._leases.values() if lease.worker == worker]:
            self._end((lease.key.job, lease.key.share), Event.FAIL)

    def exhausted(self) -> list[tuple[str, int]]:
        """Jobs, and the share of each, that were tried too often."""
        return [
            (job.job, share)
            for job in self.jobs.values()
            for share, attempt in job.attempts.items()
            if attempt - self._first_attempt >= MOST_ATTEMPTS and share not in job.flow.done
        ]

    def check(self, worker: str, key: Key) -> Job:
        """The job that a worker sends something of; raises `Dropped` where that was never leased to it, or is done."""
        if self._issued.get(key) != worker:
            raise Dropped("never asked for")
        job = self.jobs[key.job]
        if key.share in job.flow.done:
            raise Dropped("done already")
        return job

    def arrived(self, key: Key, tensor: str, digest: bytes) -> tuple[str, ...] | None:
        """An output of a share arrived: when all have, the tensors that nobody needs any more, else None."""
        job = self.jobs[key.job]
        job.tensors[tensor] = digest
        if not set(self.graph.outputs[key.share]) <= job.tensors.keys():
            return None
        self._end((key.job, key.share), Event.COMPUTED)
        released = job.flow.complete(key.share)
        for name in released:
            job.tensors.pop(name, None)
        return released

    def failed(self, worker: str, key: Key) -> None:
        """An attempt came to nothing: another follows."""
        lease = self._leases.get((key.job, key.share))
        if lease and lease.worker == worker and lease.key == key:
            self._end((key.job, key.share), Event.FAIL)

    def _at(self, worker: str, shares: Iterable[int]) -> list[int]:
        return [share for share in shares if share < len(self.homes) and self.homes[share] == worker]

    def _lose(self, share: int) -> None:
        for place in [place for place in self._leases if place[1] == share]:
            self._leases.pop(place)
        self.lives[share].apply(Event.LOSE)

    def _end(self, place: tuple[str, int], event: Event) -> None:
        """A lease ends; the share's life goes on, and infers on where another job's lease runs."""
        if self._leases.pop(place, None) is None:
            return
        life = self.lives[place[1]]
        if life.state == State.INFERRING:
            life.apply(event)
            if any(share == place[1] for _, share in self._leases):
                life.apply(Event.INFER)
