"""Publish a manager's status once a second at ``hyps/status``: workers, placements, queues and rates.

The message is retained, so that a viewer gets it at once. It expires soon, so that nobody believes the status of a manager
that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from msgspec import field

from hyps.runtime.bundle.manifest import Count, Manifest
from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.energy import EnergyLine
from hyps.runtime.cluster.manager.exit_counters import ExitsLine
from hyps.runtime.cluster.manager.options import Timeouts
from hyps.runtime.cluster.manager.rebalancer import RebalancingLine
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import Text, encode_message, shorten
from hyps.runtime.cluster.protocol.topics import STATUS
from hyps.runtime.cluster.scheduling.scheduler import Scheduler

_EVERY_S = 1.0
_NAME_LIMIT = 200
#: A viewer that gets no status for this long knows that there is no manager.
EXPIRY_S = Timeouts().status_expiry_s


class WorkerLine(Message, frozen=True, kw_only=True):
    """One worker in a status: what it has, what it holds, and what it does.

    ``leases``: inputs that were sent to it and that it has not answered; ``computed_per_s``: sub-bundles a second;
    ``seen_s``: seconds since its last message; ``queue``: messages that it has not handled; ``group``: the number of workers
    in a group, 0 for one that computes itself. A ``drained`` worker gets no sub-bundles. ``queues`` counts how often, in the
    last minute, 0, 1, ... 9, or 10 and more inputs were at it or waited for it. ``link_s``: the median seconds from a result
    until the manager had it; ``message_s``: those that it works for a message. Both are None if they are not known.
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
    queues: tuple[Count, ...] = ()
    link_s: float | None = None
    message_s: float | None = None


class CodesLine(Message, frozen=True, kw_only=True):
    """The work of codes since the manager's start: groups decoded, by code, and late and wrong answers, by worker.

    ``withdrawn``: answers that a worker did not send, as nobody needed them; ``spared``: of those, not computed either.
    ``coverage`` says which boards may be lost.
    """

    decoded: dict[str, Count] = field(default_factory=dict)
    late: dict[str, Count] = field(default_factory=dict)
    wrong: dict[str, Count] = field(default_factory=dict)
    withdrawn: dict[str, Count] = field(default_factory=dict)
    spared: dict[str, Count] = field(default_factory=dict)
    coverage: tuple[Text, ...] = ()


class SubBundleLine(Message, frozen=True, kw_only=True):
    """One sub-bundle in a status: steps ``start`` to ``stop`` - 1, each replica's state, and how many jobs wait for it.

    The homes of a ``dealt`` one share its inputs. A ``replaced`` one has none: it is decoded from others. ``service_s``: the
    median seconds that each home took for an input.
    """

    number: Count
    first: Text
    last: Text
    start: Count = 0
    stop: Count = 0
    homes: dict[str, str]
    waiting: Count
    dealt: bool = False
    replaced: bool = False
    service_s: dict[str, float] = field(default_factory=dict)


class Status(Message, frozen=True, kw_only=True):
    """The status of one manager and its cluster; ``model`` is empty while it serves no bundle.

    ``rejected`` counts messages that were not accepted, by reason.
    """

    model: Text
    jobs: Count
    answered: Count
    answered_per_s: float
    workers: tuple[WorkerLine, ...] = ()
    sub_bundles: tuple[SubBundleLine, ...] = ()
    rejected: dict[str, int] = field(default_factory=dict)
    rebalancing: RebalancingLine | None = None
    energy: EnergyLine | None = None
    codes: CodesLine | None = None
    exits: ExitsLine | None = None


class StatusPublisher:
    """The publisher of one manager's status, made of its registry of workers and its statistics."""

    def __init__(self, manifest: Manifest, workers: WorkerRegistry, statistics: Statistics, expiry_s: int) -> None:
        self._model, self._workers, self._statistics = manifest.model.name[:_NAME_LIMIT], workers, statistics
        self._steps = tuple(step.name[:_NAME_LIMIT] for step in manifest.steps)
        self._expiry_s = expiry_s
        self._published_at = 0.0
        #: Says which boards may be lost.
        self.coverage: Callable[[], tuple[str, ...]] = tuple

    def publish(self, connection: Link, scheduler: Scheduler | None, rebalancing: RebalancingLine) -> None:
        """Publish the status if a second has passed and the hub is there."""
        if time.monotonic() > self._published_at + _EVERY_S and connection.connected:
            self._published_at = time.monotonic()
            connection.publish(
                STATUS, encode_message(self.status(scheduler, rebalancing)), retain=True, expiry_s=self._expiry_s
            )

    def status(self, scheduler: Scheduler | None, rebalancing: RebalancingLine) -> Status:
        """Return the status now."""
        return Status(
            model=self._model,
            jobs=len(scheduler.jobs) if scheduler else 0,
            answered=self._statistics.answered.total,
            answered_per_s=self._statistics.answered.per_s(),
            workers=tuple(self._worker_lines(scheduler)),
            sub_bundles=tuple(self._sub_bundle_lines(scheduler)) if scheduler else (),
            rejected=dict(self._statistics.rejected),
            rebalancing=rebalancing,
            energy=self._statistics.energy.line({name: state.group for name, state in self._workers.online.items()}),
            codes=self._codes(),
            exits=self._statistics.exits.line(),
        )

    def _codes(self) -> CodesLine | None:
        """Return what codes did, None where neither they nor copies for losses are used."""
        counts, coverage = self._statistics.codes, self.coverage()
        if not coverage:
            return None
        return CodesLine(
            decoded={**counts.by_code},
            late={**counts.late},
            wrong={**counts.wrong},
            withdrawn={**counts.withdrawn},
            spared={**counts.spared},
            coverage=tuple(map(shorten, coverage)),
        )

    def _worker_lines(self, scheduler: Scheduler | None) -> Iterator[WorkerLine]:
        leases = [lease.worker for lease in scheduler.leases.values()] if scheduler else []
        for name, state in sorted(self._workers.online.items()):
            seen_s, pulse = self._workers.last_pulse(name)
            yield WorkerLine(
                name=name,
                seen_s=round(seen_s, 2),
                resident_bytes=pulse.resident_bytes,
                queue=pulse.queue,
                drained=name in self._workers.drained,
                memory_bytes=state.memory_bytes,
                macs_per_s=state.macs_per_s,
                loading=state.loading,
                loaded=state.loaded,
                leases=leases.count(name),
                computed_per_s=self._statistics.computed[name].per_s(),
                group=state.group,
                set_aside=(reason := self._workers.set_aside_because(name)) is not None,
                problem=reason or state.problem,
                queues=self._statistics.monitor.queue(name),
                link_s=_rounded(self._statistics.monitor.link_s(name)),
                message_s=_rounded(self._workers.message_s(name)),
            )

    def _sub_bundle_lines(self, scheduler: Scheduler) -> Iterator[SubBundleLine]:
        replicas, now = scheduler.replicas, time.monotonic()
        live = [*scheduler.generations.live()]
        shown = {number for numbers in live for number in numbers}
        replaced = {
            number
            for numbers in live
            for group in scheduler.graph.groups(numbers)
            if group.is_served(lambda member: bool(replicas.homes[member]))
            for number in group.members
            if not replicas.homes[number]
        }
        for number, run in sorted(scheduler.graph.runs.items(), key=lambda each: (each[1].start, each[0])):
            if number not in shown and not replicas.homes[number]:
                continue  # it comes with a move
            yield SubBundleLine(
                number=number,
                first=self._steps[run.start],
                last=self._steps[run.stop - 1],
                start=run.start,
                stop=run.stop,
                homes={home: str(replicas.state(number, home)) for home in replicas.homes[number]},
                waiting=scheduler.waiting(number),
                dealt=number in replicas.dealt and len(replicas.homes[number]) > 1,
                replaced=number in replaced,
                service_s={
                    home: round(seconds, 6)
                    for home in replicas.homes[number]
                    if (seconds := self._statistics.monitor.service_s(home, run, now)) is not None
                },
            )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)
