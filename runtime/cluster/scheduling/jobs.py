"""Keep accepted inferences, and the queues of those that wait for each sub-bundle."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.decoded_note import DecodedNote
from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.scheduling.flow import DataFlow


@dataclass(slots=True, kw_only=True)
class Job:
    """An accepted inference, to be computed by the sub-bundles of one ``generation``.

    ``tensors`` are the digests of the tensors that are there. ``arriving`` names outputs that have begun to arrive, each
    with the lease that it comes from. By sub-bundle, ``attempts`` counts leases, ``failures`` those that failed, and
    ``asked`` names the workers that were asked to compute it. ``decoded`` says which tensors no worker computed; if the
    client wants an ``exact`` result, there are none.
    """

    job: str
    client: str
    number: int
    flow: DataFlow
    tensors: dict[str, bytes]
    generation: int = 0
    exact: bool = False
    decoded: DecodedNote | None = None
    arriving: dict[str, Key] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    asked: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


class Backlog:
    """A queue for each sub-bundle: the jobs, oldest first, that have or are getting its inputs, and lack its outputs."""

    def __init__(self) -> None:
        self._queues: defaultdict[int, list[Job]] = defaultdict(list)

    def of(self, sub_bundle: int) -> Iterator[Job]:
        """Iterate over the jobs that wait for a sub-bundle."""
        return iter(self._queues[sub_bundle])

    def count(self, sub_bundle: int) -> int:
        """Return how many jobs wait for a sub-bundle."""
        return len(self._queues[sub_bundle])

    def put(self, job: Job) -> None:
        """Put a job into the queues of its ready sub-bundles, and take it out of all others."""
        self._place(job, job.flow.ready(job.arriving))

    def remove(self, job: Job) -> None:
        """Take a job out of all queues."""
        self._place(job, ())

    def drop(self, sub_bundle: int) -> None:
        """Forget a sub-bundle's queue, which is empty."""
        assert not self._queues.pop(sub_bundle, None)

    def _place(self, job: Job, ready: tuple[int, ...]) -> None:
        for number in job.flow.numbers:
            queue = self._queues[number]
            at = bisect.bisect_left(queue, job.number, key=lambda each: each.number)
            is_waiting = queue[at : at + 1] == [job]
            if is_waiting and number not in ready:
                del queue[at]
            elif number in ready and not is_waiting:
                queue.insert(at, job)
