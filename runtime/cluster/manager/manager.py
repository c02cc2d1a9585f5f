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
from typing import TypeVar

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, TensorRecord
from hyps.runtime.cluster.broker.acknowledgements import UNACKNOWLEDGED, Acknowledgements
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
from hyps.runtime.cluster.manager.results import ResultCollector
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.status import Status, StatusPublisher
from hyps.runtime.cluster.manager.submissions import Submissions, damage_reason
from hyps.runtime.cluster.manager.worker_watch import WorkerWatch
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Partial, ReceivedTensor, Rejected
from hyps.runtime.cluster.protocol.frames import MAGIC, Key, Rejection
from hyps.runtime.cluster.protocol.messages import Profiled, Pulse, Timed, WorkerMessage
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, User, parse_topic, topic
from hyps.runtime.cluster.protocol.withdrawal import Withdraw, Withdrawn
from hyps.runtime.cluster.scheduling.dispatch import LEASED_BYTES
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.cluster.transfer.sender import InputSender
from hyps.runtime.terminal.console import plain

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
        self._statistics = Statistics(options.own_board)
        self._workers = WorkerRegistry(
            bundle, self.manifest, listen, options, self._statistics.speeds, self._statistics.monitor
        )
        self._status = StatusPublisher(self.manifest, self._workers, self._statistics, options.timeouts.status_expiry_s)
        self._profiles = ProfileKeeper(bundle, self.manifest, options.profiles)
        placer = Placer(self.manifest, options, self._profiles.seconds_on)
        schedule = schedule_id(bundle_sha256, self.manifest)
        self.deployment = Deployment(self.manifest, schedule, journal, self._workers, placer, options, say)
        self._status.coverage = lambda: self.deployment.coverage
        self._rebalancer = Rebalancer(
            self.manifest,
            self.deployment,
            placer,
            self._workers,
            self._statistics.monitor,
            self._statistics.answered,
            options,
            say,
        )
        self._watch_workers = WorkerWatch(self._workers, self.deployment, self._statistics.speeds, say)
        self._submissions = Submissions(self.manifest, bundle_sha256, journal, self._publish, compress=compress)
        self._results = ResultCollector(
            self.deployment,
            journal,
            self._statistics,
            options.votes,
            answered=self._watch_workers.answered,
            unanswered=self._watch_workers.unanswered,
            outvoted=self._watch_workers.set_aside,
            withdraw=lambda lease: self._publish_input(lease, messages.encode_message(Withdraw(key=lease.key))),
            ended=self._on_end,
        )
        if self.manifest.codes:
            self._results.coded = CodedResults(
                self.manifest, journal, self._results, self._statistics.codes, options.hedge, options.straggler_s
            )
        self._started_at = time.monotonic()
        self._unacknowledged = Acknowledgements(UNACKNOWLEDGED)
        self._repeats = Tally()
        # apart, so that clients' inputs, however many, leave room for workers' outputs
        self._inputs = Assembler(self._expected_record, limit_bytes=self._submissions.arriving_bytes)
        outputs_bytes = max(LEASED_BYTES, 2 * _largest_step_bytes(self.manifest))
        self._outputs = Assembler(self._expected_record, limit_bytes=outputs_bytes)
        self._sender = InputSender(self.manifest.tensors, journal, self._outputs, self._publish_input, compress=compress)
        self._events = EventQueue()
        self.deployment.resume()
        self._connection = link(
            MANAGER,
            received=lambda *event: self._events.put(lambda: self._receive(*event)),
            connected=self._connected,
        )
        self.health = Health(self._connection, self._workers, self.deployment)

    @property
    def _scheduler(self) -> Scheduler | None:
        return self.deployment.scheduler

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Serve until interrupted, or until ``until`` returns True; it is called with every tick.

        Raises `HubError`, and `OutputError` if the journal cannot be written.
        """
        self._connection.open(patient=True)
        self._workers.open(self._connection)
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
                    self._submissions.admit(len(self._scheduler.jobs))
                    self._send_inputs(self._scheduler)
        finally:
            self._connection.close()
            self._profiles.close()
            self._workers.close()
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
        self._inputs.forget(job)
        if self._scheduler and job in self._scheduler.jobs:
            self._results.fail(job, "the job was cancelled")
            self._journal.forget(job)

    def _send_inputs(self, scheduler: Scheduler) -> None:
        for lease in scheduler.tasks(time.monotonic()):
            if (job := scheduler.jobs.get(lease.key.job)) is None:
                scheduler.failed(lease.worker, lease.key)  # the job has just failed
                continue
            self._statistics.trace.sent(lease.key, lease.worker)
            self._results.sent(lease)
            self._watch_workers.sent(lease)
            number, graph = lease.key.sub_bundle, scheduler.graph
            result_bytes = graph.moved_bytes[number] - graph.input_bytes[number]
            self._statistics.monitor.sent(lease.key, lease.worker, graph.runs[number], result_bytes, time.monotonic())
            try:
                self._sender.send(lease, job, scheduler.graph.inputs[lease.key.sub_bundle])
            except DamagedTensor as fault:
                _log.error("job %s fails: %s", lease.key.job, fault)
                scheduler.failed(lease.worker, lease.key)
                self._results.fail(lease.key.job, damage_reason(fault))

    def _publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        self._connection.publish(topic, payload, expiry_s=expiry_s)

    def _publish_input(self, lease: Lease, payload: bytes) -> None:
        self._publish(topic(Role.WORKER, lease.worker, "input"), payload, int(self._options.lease_s) + 1)

    def _connected(self) -> None:
        """Subscribe (on the connection's thread)."""
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        self._events.put(self._workers.hub_is_back)

    def _receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Handle a message from the hub; a rejected one is counted and acknowledged."""
        try:
            source = parse_topic(text)
            if source is None:
                raise Rejection("unknown topic")
            name = source.user.name
            if source.channel == "output":
                self._workers.seen(name)
            if source.channel == "state":
                if payload:
                    self._watch_workers.state(name, messages.decode_state(payload))
            elif payload.startswith(MAGIC):
                self._on_frame(source.user, payload, acknowledge)
                return  # the frame is acknowledged when its tensor is written down
            elif source.channel == "output":
                self._on_worker_message(name, messages.decode_worker_message(payload))
            else:
                self._on_client_message(name, messages.decode_client_message(payload))
        except Rejection as reason:
            self._statistics.rejected[str(reason)] += 1
            if (times := self._repeats.count((text, str(reason)))) is not None:
                _log.warning("dropped a message of %d bytes on %s: %s%s", len(payload), plain(text), reason, times)
        acknowledge()

    def _on_worker_message(self, name: str, message: WorkerMessage) -> None:
        if isinstance(message, Pulse):
            self._workers.pulse(name, message)
            if name in self._workers.online:
                self._statistics.energy.pulse(name, message)
        elif isinstance(message, Timed):
            self._statistics.monitor.timed(name, message, time.monotonic())
            self._on_times(name, message)
        elif isinstance(message, Profiled):
            self._profiles.profiled(name, self._workers.online.get(name), message)
        elif isinstance(message, Withdrawn):
            self._results.withdrawn(name, message)
        else:
            self._results.failed(name, message)

    def _on_times(self, name: str, message: Timed) -> None:
        waited_s = self._statistics.trace.timed(name, message)
        if waited_s is not None:
            run, read_s = self.deployment.run_of(name, message.key.sub_bundle)
            self._profiles.answered(name, self._workers.online.get(name), run, message, waited_s, read_s)

    def _on_client_message(self, name: str, message: messages.Submit | messages.Delivered) -> None:
        starting = time.monotonic() < self._started_at + self._options.timeouts.startup_s
        if self._scheduler is None and starting and isinstance(message, messages.Submit):
            _log.info("a job must wait for workers; its client asks again")
        else:
            self._submissions.handle(name, message, has_workers=self._scheduler is not None)

    def _on_frame(self, sender: User, frame: bytes, acknowledge: Callable[[], None]) -> None:
        """Take a chunk and forward it; when its tensor is complete, write that down. Raises `Rejection`."""
        result = (self._inputs if sender.role is Role.CLIENT else self._outputs).add(sender, frame)
        if isinstance(result, Rejected):
            raise Rejection(result.reason)
        self._unacknowledged.hold(result.header.key, acknowledge)
        self._forward(result)
        if isinstance(result, Complete):
            self._on_tensor(sender, result.received)
            self._unacknowledged.give(result.header.key)

    def _forward(self, accepted: Partial | Complete) -> None:
        """Send a worker's chunk on to the workers that wait for its tensor."""
        header = accepted.header
        if header.key.sub_bundle >= 0 and self._scheduler:
            self._statistics.trace.begun(header.key)
            if self._results.passes(header.key):
                self._scheduler.begun(header.key, header.tensor)
            self._sender.pass_on(header, accepted.chunk, self._scheduler.leases)

    def _on_tensor(self, sender: User, received: ReceivedTensor) -> None:
        if received.key.sub_bundle >= 0:
            self._results.arrived(sender.name, received)
        elif self._scheduler and (new := self._submissions.arrived(received, self._scheduler.generation)):
            self._scheduler.add(new.job, new.client, new.digests, exact=new.exact)
            self._statistics.trace.accepted(new.job)

    def _expected_record(self, sender: User, key: Key, tensor: str) -> TensorRecord:
        """Return the record of a client's input, or of a worker's output that it was asked for. Raises `Rejection`."""
        if key.sub_bundle < 0:
            return self._submissions.expected_record(key, tensor, sender.name if sender.role is Role.CLIENT else "")
        if sender.role is not Role.WORKER or self._scheduler is None:
            raise Rejection("never asked for")
        self._scheduler.check(sender.name, key)
        if tensor not in self._scheduler.graph.outputs.get(key.sub_bundle, ()):
            raise Rejection("unknown tensor")
        return self.manifest.tensors[tensor]

    def _on_end(self, job: str) -> None:
        self._outputs.forget(job)
        self._sender.forget(job)
        self._submissions.answer(job)

    def _tick(self) -> None:
        self._watch_workers.check()
        if self._scheduler:
            for lease in self._scheduler.expire(time.monotonic()):
                reason = f"it did not answer within {self._options.lease_s:.0f} s, several times in a row"
                self._watch_workers.unanswered(lease.worker, reason)
            for job, number in self._scheduler.exhausted():
                self._results.fail(job, f"sub-bundle {number} was tried too often")
        for job in self._submissions.expire():
            self._inputs.forget(job)
        self.deployment.ensure()
        self._rebalancer.tick()
        self._status.publish(self._connection, self._scheduler, self._rebalancer.line())
        self._profiles.write(time.monotonic())


def _largest_step_bytes(manifest: Manifest) -> int:
    """Return the largest sum of the tensors that are there after a step: an upper bound on what arrives for one job."""
    return max(sum(manifest.tensors[name].nbytes for name in step.live) for step in manifest.steps)
