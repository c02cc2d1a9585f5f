"""What a manager says of itself once a second, at ``hyps/status``: workers, placements, queues, rates.

Retained, so that whoever asks gets it at once, and short-lived, so that nothing of a manager that is gone is believed.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping

from msgspec import field

from hyps.runtime.bundle.manifest import Count, Manifest
from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol.messages import Message, Text, encode_message
from hyps.runtime.cluster.protocol.topics import STATUS
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.scheduling.trace import Trace

#: Rates are of so many seconds.
_SPAN_S = 10.0
_EVERY_S = 1.0
#: A status older than that is nobody's.
EXPIRY_S = 5


class WorkerLine(Message, frozen=True, kw_only=True):
    """A worker: its memory, what it holds, inputs it was sent and has not answered, shares computed a second.

    ``seen_s``: seconds since it said anything; ``queue``: messages that it has not looked at. A ``drained`` one gets no
    shares. ``group``: how many workers stand behind it, else 0.
    """

    name: Text
    memory_bytes: Count
    macs_per_s: Count
    loading: tuple[Count, ...]
    loaded: tuple[Count, ...]
    leases: Count
    computed_per_s: float
    seen_s: float = 0.0
    resident_bytes: Count = 0
    queue: Count = 0
    drained: bool = False
    group: Count = 0
    set_aside: bool = False
    problem: Text | None = None


class ShareLine(Message, frozen=True, kw_only=True):
    """A share: its first and last step, how far each of its workers is with it, and how many jobs wait for it."""

    number: Count
    first: Text
    last: Text
    start: Count = 0
    stop: Count = 0
    homes: dict[str, str]
    waiting: Count


class Status(Message, frozen=True, kw_only=True):
    """All of it. ``dropped`` counts messages that were not taken, by reason."""

    model: Text
    jobs: Count
    answered: Count
    answered_per_s: float
    workers: tuple[WorkerLine, ...] = ()
    shares: tuple[ShareLine, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)


class Meter:
    """Counts events, and how many there are a second."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[float] = deque(maxlen=10_000)
        self._began = time.monotonic()

    def count(self) -> None:
        """One more."""
        self.total += 1
        self._recent.append(time.monotonic())

    def per_s(self) -> float:
        """Over the last seconds, or since the beginning."""
        now = time.monotonic()
        while self._recent and self._recent[0] < now - _SPAN_S:
            self._recent.popleft()
        return round(len(self._recent) / min(_SPAN_S, max(now - self._began, 0.1)), 2)


class StatusPublisher:
    """Says how a manager is, once a second."""

    def __init__(self, manifest: Manifest, crew: WorkerRegistry) -> None:
        self._model, self._crew = manifest.model.name[:200], crew
        self._steps = tuple(step.name for step in manifest.steps)
        self._said_at = 0.0
        self.answered = Meter()
        self.trace = Trace()
        self.computed: defaultdict[str, Meter] = defaultdict(Meter)

    def report(self, connection: Link, scheduler: Scheduler | None, dropped: Mapping[str, int]) -> None:
        """Publish the state, unless that was done just now or nobody would get it."""
        if time.monotonic() > self._said_at + _EVERY_S and connection.connected:
            self._said_at = time.monotonic()
            payload = encode_message(self.status(scheduler, dropped))
            connection.publish(STATUS, payload, retain=True, expiry_s=EXPIRY_S)

    def status(self, scheduler: Scheduler | None, dropped: Mapping[str, int]) -> Status:
        """The state now."""
        return Status(
            model=self._model,
            jobs=len(scheduler.jobs) if scheduler else 0,
            answered=self.answered.total,
            answered_per_s=self.answered.per_s(),
            workers=tuple(self._workers(scheduler)),
            shares=_shares(scheduler, self._steps) if scheduler else (),
            dropped=dict(dropped),
        )

    def _workers(self, scheduler: Scheduler | None) -> Iterator[WorkerLine]:
        leases = [lease.worker for lease in scheduler.leases.values()] if scheduler else []
        for name, state in sorted(self._crew.online.items()):
            seen_s, pulse = self._crew.last_pulse(name)
            yield WorkerLine(
                name=name,
                seen_s=round(seen_s, 2),
                resident_bytes=pulse.resident_bytes,
                queue=pulse.queue,
                drained=name in self._crew.drained,
                memory_bytes=state.memory_bytes,
                macs_per_s=state.macs_per_s,
                loading=state.loading,
                loaded=state.loaded,
                leases=leases.count(name),
                computed_per_s=self.computed[name].per_s(),
                group=state.group,
                set_aside=self._crew.is_set_aside(name),
                problem=state.problem,
            )


def _shares(scheduler: Scheduler, steps: tuple[str, ...]) -> tuple[ShareLine, ...]:
    holders = scheduler.holders
    return tuple(
        ShareLine(
            number=number,
            first=steps[run.start][:200],
            last=steps[run.stop - 1][:200],
            start=run.start,
            stop=run.stop,
            homes={home: str(holders.state(number, home)) for home in holders.homes[number]},
            waiting=scheduler.waiting(number),
        )
        for number, run in enumerate(scheduler.graph.runs)
    )
