"""Accepted inferences, and which of them wait for which share."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.scheduling.flow import Flow


@dataclass(slots=True, kw_only=True)
class Job:
    """An accepted inference; ``tensors`` are digests of what is there, by name; ``asked`` workers, by share.

    ``arriving`` are outputs of shares that are not done: which lease each comes from.
    """

    job: str
    client: str
    number: int
    flow: Flow
    tensors: dict[str, bytes]
    arriving: dict[str, Key] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    asked: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


class Backlog:
    """For every share the jobs that have its inputs, or begin to have them, and not its outputs; the oldest first."""

    def __init__(self, shares: int) -> None:
        self._queues: list[list[Job]] = [[] for _ in range(shares)]

    def of(self, share: int) -> Iterator[Job]:
        """The jobs that wait for a share."""
        return iter(self._queues[share])

    def count(self, share: int) -> int:
        """How many wait for a share."""
        return len(self._queues[share])

    def put(self, job: Job) -> None:
        """Have a job wait where it is ready, and nowhere else."""
        self._place(job, job.flow.ready(job.arriving))

    def remove(self, job: Job) -> None:
        """A job waits for nothing more."""
        self._place(job, ())

    def _place(self, job: Job, ready: tuple[int, ...]) -> None:
        for share, queue in enumerate(self._queues):
            at = bisect.bisect_left(queue, job.number, key=lambda each: each.number)
            waits = queue[at : at + 1] == [job]
            if waits and share not in ready:
                del queue[at]
            elif share in ready and not waits:
                queue.insert(at, job)
