"""End leases, and with each the leases of other workers that its arriving outputs feed."""

from __future__ import annotations

from collections.abc import Mapping

from hyps.runtime.cluster.scheduling.jobs import Backlog, Job
from hyps.runtime.cluster.scheduling.leases import Lease, LeaseTable
from hyps.runtime.cluster.scheduling.lifecycle import Event
from hyps.runtime.cluster.scheduling.replicas import Replicas


class LeaseEnds:
    """The ends of the leases of one scheduler: a sub-bundle whose lease ends without a result waits for another."""

    def __init__(self, jobs: Mapping[str, Job], replicas: Replicas, backlog: Backlog, leases: LeaseTable) -> None:
        self._jobs, self._replicas, self._backlog, self._leases = jobs, replicas, backlog, leases

    def fail(self, lease: Lease) -> None:
        """End a lease that its worker is to blame for."""
        if job := self._jobs.get(lease.key.job):
            job.failures[lease.key.sub_bundle] += 1
        self.cancel(lease)

    def cancel(self, lease: Lease) -> None:
        """End a lease without a result, so that it is given out again, possibly to the same worker."""
        if job := self._jobs.get(lease.key.job):
            job.asked[lease.key.sub_bundle].discard(lease.worker)
        self.end(lease, Event.FAIL)

    def end(self, lease: Lease, event: Event) -> None:
        """End a lease that its worker has computed, or that is over for another reason (`Event.FAIL`)."""
        if not self._leases.end(lease.key):
            return
        job = self._jobs.get(lease.key.job)
        if job and event is Event.FAIL and (cut := [name for name, key in job.arriving.items() if key == lease.key]):
            for name in cut:
                self.cut_off(job, name)
            self._backlog.put(job)
        number, worker = lease.key.sub_bundle, lease.worker
        self._replicas.ended(number, worker, event, goes_on=self._leases.is_inferring(worker, number))

    def cut_off(self, job: Job, tensor: str) -> None:
        """End the leases that an arriving tensor feeds: the rest of it will not come."""
        source = job.arriving.pop(tensor)
        for lease in self._leases.fed_by(source, tensor):
            self.cancel(lease)
