"""Keep the leases of a scheduler: which run, and which were issued lately."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.frames import Key

#: Issued leases that are remembered, so that a late result can be told from one that was never asked for.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One sub-bundle of one job at one worker, until ``deadline`` in seconds of the caller's clock.

    ``fed`` maps each input that was still arriving to the lease that it comes from.
    """

    key: Key
    worker: str
    deadline: float
    fed: Mapping[str, Key] = field(default_factory=dict)


class LeaseTable:
    """The running leases of one scheduler by key, and the workers of those that were issued lately."""

    def __init__(self) -> None:
        self._running: dict[Key, Lease] = {}
        self._issued: OrderedDict[Key, str] = OrderedDict()

    @property
    def running(self) -> Mapping[Key, Lease]:
        """The running leases by key, the oldest first."""
        return self._running

    def issue(self, lease: Lease) -> None:
        """Add a new lease."""
        self._running[lease.key] = lease
        self._issued[lease.key] = lease.worker
        if len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)

    def end(self, key: Key) -> bool:
        """End a lease; return whether it was running."""
        return self._running.pop(key, None) is not None

    def was_issued(self, key: Key, worker: str) -> bool:
        """Return whether this worker got this lease, running or not."""
        return self._issued.get(key) == worker

    def counts(self) -> Counter[str]:
        """Return the number of running leases of each worker."""
        return Counter(lease.worker for lease in self._running.values())

    def of(self, worker: str) -> list[Lease]:
        """Return the running leases of a worker."""
        return [lease for lease in self._running.values() if lease.worker == worker]

    def at(self, job: str, sub_bundle: int) -> list[Lease]:
        """Return the running leases of one sub-bundle of one job."""
        return [lease for lease in self._running.values() if (lease.key.job, lease.key.sub_bundle) == (job, sub_bundle)]

    def fed_by(self, source: Key, tensor: str) -> list[Lease]:
        """Return the running leases that a tensor of another lease feeds."""
        return [lease for lease in self._running.values() if lease.key.job == source.job and lease.fed.get(tensor) == source]

    def is_inferring(self, worker: str, sub_bundle: int) -> bool:
        """Return whether a running lease has this worker compute this sub-bundle, of any job."""
        return any((each.key.sub_bundle, each.worker) == (sub_bundle, worker) for each in self._running.values())
