"""Run a bundle for clients: take jobs, place steps on workers, forward tensors (Kaboubi, sections 3.3.1 and 3.3.3).

Everything that happens is an event on one queue, handled by one thread: a message from the hub, or a tick. Each job, and
each tensor that a worker made, is in the journal before it is acknowledged to the hub.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.broker.link import LinkFactory
from hyps.runtime.cluster.codes.collector import CodedResults
from hyps.runtime.cluster.codes.served import schedule_id, served_manifest, vote_lines
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.event_queue import EventQueue
from hyps.runtime.cluster.manager.health import Health
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.profile_keeper import ProfileKeeper
from hyps.runtime.cluster.manager.rebalancer import Rebalancer
from hyps.runtime.cluster.manager.reception import MessageReception
from hyps.runtime.cluster.manager.results import ResultCollector
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.status import Status, StatusPublisher
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.manager.tensor_traffic import TensorTraffic
from hyps.runtime.cluster.manager.upkeep import PlacementUpkeep
from hyps.runtime.cluster.manager.worker_watch import WorkerWatch
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, topic
from hyps.runtime.cluster.protocol.withdrawal import Withdraw
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.cluster.transfer.journal import Journal

if TYPE_CHECKING:
    from hyps.runtime.cluster.manager.early_exits import EarlyExits

_TICK_S = 0.2
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class Manager:
    """The manager of one bundle at one hub.

    ``say`` gets lines for the operator; ``watch`` is called after every event.
    """

    def __init__(
        self,
        bundle: Path,
        link: LinkFactory,
        journal: Journal,
        options: ClusterOptions,
        *,
        listen: str | None = None,
        say: Callable[[str], None] = _log.info,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        compiled = read_manifest(bundle)
        self.manifest = served_manifest(compiled, exact=options.exact, votes=options.votes)
        if options.votes > 1 and not options.exact:
            for line in vote_lines(compiled.codes, self.manifest, options.votes):
                say(line)
        check_sendable(self.manifest)
        check_files(bundle, self.manifest)
        bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        compress = options.compress
        self._journal, self._options, self._say, self._watch = journal, options, say, watch
        self._statistics = Statistics(self.manifest, options.own_board)
        self._workers = WorkerRegistry(
            bundle, self.manifest, listen, options, self._statistics.speeds, self._statistics.monitor
        )
        self._status = StatusPublisher(self.manifest, self._workers, self._statistics, options.timeouts.status_expiry_s)
        self._profiles = ProfileKeeper(bundle, self.manifest, options.profiles)
        placer = Placer(self.manifest, options, self._profiles.seconds_on, self._profiles.answered_before)
        schedule = schedule_id(bundle_sha256, self.manifest)
        self.deployment = Deployment(self.manifest, schedule, journal, self._workers, placer, options, say)
        self.upkeep = PlacementUpkeep(self.manifest, self.deployment, self._workers, placer, options, say)
        self._status.coverage = lambda: self.deployment.coverage
        self._rebalancer = Rebalancer(
            self.manifest,
            self.deployment,
            self.upkeep,
            placer,
            self._workers,
            self._statistics.monitor,
            self._statistics.answered,
            options,
            say,
        )
        self._watch_workers = WorkerWatch(self._workers, self.upkeep, self.deployment, self._statistics.speeds, say)
        self._submissions = Submissions(
            self.manifest, bundle_sha256, journal, self._publish, self.upkeep.cuts, compress=compress
        )
        self._results = ResultCollector(
            self.deployment,
            journal,
            self._statistics,
            options.votes,
            answered=self._watch_workers.answered,
            unanswered=self._watch_workers.unanswered,
            outvoted=self._watch_workers.set_aside,
            withdraw=lambda lease: self._publish_input(lease, messages.encode_message(Withdraw(key=lease.key))),
            made_at=self._submissions.answers.made_at,
            ended=self._on_end,
        )
        if self.manifest.codes:
            self._results.coded = CodedResults(
                self.manifest, journal, self._results, self._statistics.codes, options.hedge, options.straggler_s
            )
        self._traffic = TensorTraffic(
            self.manifest,
            self.deployment,
            self._submissions,
            self._results,
            self._watch_workers,
            self._statistics,
            journal,
            self._publish_input,
            compress=compress,
        )
        self._reception = MessageReception(
            self.deployment,
            self._workers,
            self._watch_workers,
            self._submissions,
            self._results,
            self._traffic,
            self._statistics,
            self._profiles,
            startup_s=options.timeouts.startup_s,
        )
        self._events = EventQueue()
        if options.exit_policy != "never" or options.offload:
            from hyps.runtime.cluster.manager.early_exits import early_exits  # it imports numpy and onnxruntime

            self._results.exits = early_exits(self.manifest, bundle, options, journal, self._results, self._events.put)
        elif self.manifest.exits:
            self._results.new_exits = self._exits_of_clients
        self.upkeep.resume()
        self._connection = link(
            MANAGER,
            received=lambda *event: self._events.put(lambda: self._reception.receive(*event)),
            connected=self._connected,
        )
        self.health = Health(self._connection, self._workers, self.deployment)

    @property
    def _scheduler(self) -> Scheduler | None:
        return self.deployment.scheduler

    def _exits_of_clients(self) -> EarlyExits:
        """Return what decides by the policies of clients alone."""
        from hyps.runtime.cluster.manager.early_exits import EarlyExits
        from hyps.runtime.exits.policies import NeverExit

        return EarlyExits(self.manifest, NeverExit(), self._journal, self._results, self._events.put)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Serve until interrupted, or until ``until`` returns True; it is called with every tick.

        Raises `HubError`, and `OutputError` if the journal cannot be written.
        """
        self._connection.open(patient=True)
        self._workers.orders.open(self._connection)
        try:
            next_tick = time.monotonic()
            while True:
                if self._events.run_next(timeout_s=self._results.wait_s(next_tick - time.monotonic())):
                    self._watch()
                if time.monotonic() >= next_tick:
                    if until():
                        return
                    self._tick()
                    next_tick = time.monotonic() + _TICK_S
                if self._scheduler:
                    self._results.settle()
                    self._submissions.admit(len(self._scheduler.jobs), self._scheduler.generations.before)
                    self._traffic.send_inputs(self._scheduler)
        finally:
            self._connection.close()
            self._profiles.close()
            if self._results.exits:
                self._results.exits.close()
            self._workers.orders.close()
            self._events.discard()

    def ask(self, question: Callable[[], _Answer]) -> Future[_Answer]:
        """Have ``question`` called on the manager's thread, and return its future answer. Thread-safe."""
        return self._events.ask(question)

    def status(self) -> Status:
        """Return the status now. Not thread-safe: `ask` for it."""
        return self._status.status(self._scheduler, self._rebalancer.line())

    def spans(self, job: str) -> list[Span]:
        """Return the times of a job's sub-bundles. Not thread-safe: `ask` for them."""
        return self._statistics.trace.of(job)

    def cancel(self, job: str) -> None:
        """Give up a job that is announced or under way. Not thread-safe: call it through `ask`."""
        self._submissions.withdraw(job)
        self._traffic.forget_inputs(job)
        if self._scheduler and job in self._scheduler.jobs:
            self._results.fail(job, "the job was cancelled")
            self._journal.forget(job)

    def _publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        self._connection.publish(topic, payload, expiry_s=expiry_s)

    def _publish_input(self, lease: Lease, payload: bytes) -> None:
        self._publish(topic(Role.WORKER, lease.worker, "input"), payload, int(self._options.lease_s) + 1)

    def _connected(self) -> None:
        """Subscribe (on the connection's thread)."""
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        self._events.put(self._workers.hub_is_back)

    def _on_end(self, job: str) -> None:
        self._traffic.forget(job)
        self._submissions.answers.send(job)

    def _tick(self) -> None:
        self._watch_workers.check()
        if self._scheduler:
            for lease in self._scheduler.expire(time.monotonic()):
                reason = f"it did not answer within {self._options.lease_s:.0f} s, several times in a row"
                self._watch_workers.unanswered(lease.worker, reason)
            for job, number in self._scheduler.exhausted():
                self._results.fail(job, f"sub-bundle {number} was tried too often")
        for job in self._submissions.expire():
            self._traffic.forget_inputs(job)
        self.upkeep.ensure()
        if self._scheduler:  # what workers load meanwhile is not urgent if jobs can go on without it
            self._workers.orders.leave_room(leave=bool(self._scheduler.jobs) and self._scheduler.ready)
        self._rebalancer.tick()
        self._status.publish(self._connection, self._scheduler, self._rebalancer.line())
        self._profiles.write(time.monotonic())
