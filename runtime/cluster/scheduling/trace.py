"""What the last jobs took, share by share: when inputs were sent, what the board computed, when its answer came."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed

#: So many jobs are remembered.
MAX_TRACED_JOBS = 500


@dataclass(slots=True, kw_only=True)
class Span:
    """One share of one job at one worker; seconds since the job was accepted, ``compute_s`` and ``steps_s`` by the worker.

    ``begun_s``: the first byte of its answer came; ``done_s``: the last.
    """

    share: int
    worker: str
    sent_s: float
    compute_s: float | None = None
    begun_s: float | None = None
    done_s: float | None = None
    steps_s: tuple[float, ...] = ()


class Trace:
    """The last jobs. Of the manager's thread alone."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[float, dict[Key, Span]]] = OrderedDict()

    def accepted(self, job: str) -> None:
        """A job begins."""
        self._jobs[job] = time.monotonic(), {}
        if len(self._jobs) > MAX_TRACED_JOBS:
            self._jobs.popitem(last=False)

    def sent(self, key: Key, worker: str) -> None:
        """A worker gets a share's inputs from now on."""
        if known := self._jobs.get(key.job):
            began, spans = known
            spans[key] = Span(share=key.share, worker=worker, sent_s=time.monotonic() - began)

    def begun(self, key: Key) -> None:
        """A part of an answer came."""
        began, span = self._of(key)
        if span and span.begun_s is None:
            span.begun_s = time.monotonic() - began

    def timed(self, worker: str, message: Timed) -> None:
        """A worker says what it took; of what others compute it has nothing to say."""
        _, span = self._of(message.key)
        if span and span.worker == worker:
            span.compute_s, span.steps_s = message.compute_s, message.steps_s

    def done(self, key: Key) -> None:
        """All of an answer is there."""
        began, span = self._of(key)
        if span:
            span.done_s = time.monotonic() - began

    def of(self, job: str) -> list[Span]:
        """A job's spans, in the order in which they were sent."""
        return [*self._jobs[job][1].values()] if job in self._jobs else []

    def _of(self, key: Key) -> tuple[float, Span | None]:
        began, spans = self._jobs.get(key.job, (0.0, {}))
        return began, spans.get(key)
