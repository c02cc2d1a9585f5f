"""Record the times of the last jobs, by sub-bundle: inputs sent, computing time, and results received."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed

#: The number of jobs that are remembered.
MAX_TRACED_JOBS = 500


@dataclass(slots=True, kw_only=True)
class Span:
    """The times of one sub-bundle of one job at one worker, in seconds since the job was accepted.

    ``begun_s``: the first bytes of its result came; ``done_s``: the last. The worker measured ``compute_s`` and ``steps_s``.
    """

    sub_bundle: int
    worker: str
    sent_s: float
    compute_s: float | None = None
    begun_s: float | None = None
    done_s: float | None = None
    steps_s: tuple[float, ...] = ()


class Trace:
    """The times of one manager's last jobs. Not thread-safe: use it on the manager's thread."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[float, dict[Key, Span]]] = OrderedDict()

    def accepted(self, job: str) -> None:
        """Start a job's clock."""
        self._jobs[job] = time.monotonic(), {}
        if len(self._jobs) > MAX_TRACED_JOBS:
            self._jobs.popitem(last=False)

    def sent(self, key: Key, worker: str) -> None:
        """Note that a worker is being sent a sub-bundle's inputs."""
        if known := self._jobs.get(key.job):
            began, spans = known
            spans[key] = Span(sub_bundle=key.sub_bundle, worker=worker, sent_s=time.monotonic() - began)

    def begun(self, key: Key) -> None:
        """Note that a part of a result came."""
        began, span = self._span(key)
        if span and span.begun_s is None:
            span.begun_s = time.monotonic() - began

    def timed(self, worker: str, message: Timed) -> float | None:
        """Take the times that a worker measured, and return the seconds since it was sent the inputs.

        Ignore what it says of another worker's attempt, and return None.
        """
        began, span = self._span(message.key)
        if span is None or span.worker != worker:
            return None
        span.compute_s, span.steps_s = message.compute_s, message.steps_s
        return time.monotonic() - began - span.sent_s

    def done(self, key: Key) -> None:
        """Note that a result is complete."""
        began, span = self._span(key)
        if span:
            span.done_s = time.monotonic() - began

    def of(self, job: str) -> list[Span]:
        """Return a job's spans in the order in which their inputs were sent."""
        return [*self._jobs[job][1].values()] if job in self._jobs else []

    def _span(self, key: Key) -> tuple[float, Span | None]:
        began, spans = self._jobs.get(key.job, (0.0, {}))
        return began, spans.get(key)
