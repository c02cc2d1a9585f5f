"""The manager: takes jobs, places a bundle's steps on workers, and passes tensors on (Kaboubi, sections 3.3.1 and 3.3.3).

All that happens is an event on one queue, taken by one thread: what the hub brings, and a tick. A job, and every tensor that
a worker made, is in the journal before the hub is told that it arrived.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, TensorRecord
from hyps.runtime.cluster.broker.acknowledgements import UNACKNOWLEDGED, Acknowledgements
from hyps.runtime.cluster.broker.link import Linker
from hyps.runtime.cluster.manager.deployment import ClusterOptions, Deployment
from hyps.runtime.cluster.manager.health import Health
from hyps.runtime.cluster.manager.results import ResultCollector
from hyps.runtime.cluster.manager.status import Status, StatusPublisher
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler
from hyps.runtime.cluster.protocol.frames import MAGIC, Dropped, Head, Key, parse
from hyps.runtime.cluster.protocol.messages import Failed, Pulse, Timed
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, parse_topic, topic
from hyps.runtime.cluster.scheduling.scheduler import Lease, Scheduler
from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.cluster.transfer.sender import Sender

_ARRIVING_BYTES = 256 << 20
_TICK_S = 0.2
#: Workers that are there have been heard by then.
_START_S = 5.0
_Answer = TypeVar("_Answer")
log = logging.getLogger(__name__)


class Manager:
    """Serves one bundle until stopped."""

    def __init__(
        self,
        bundle: Path,
        link: Linker,
        journal: Journal,
        wishes: ClusterOptions,
        *,
        listen: str | None = None,
        say: Callable[[str], None] = log.info,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest = read_manifest(bundle)
        check_files(bundle, self.manifest)
        bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        self._journal, self._wishes, self._say, self._watch = journal, wishes, say, watch
        self._crew = WorkerRegistry(bundle, self.manifest, listen, pack=wishes.pack)
        self.planning = Deployment(self.manifest, bundle_sha256, journal, self._crew, wishes, say)
        self._intake = Submissions(self.manifest, bundle_sha256, journal, self._publish, pack=wishes.pack)
        self._reporter = StatusPublisher(self.manifest, self._crew)
        told = (self._on_outvoted, self._on_end)
        self._answers = ResultCollector(self.planning, journal, self._reporter, wishes.votes, *told)
        self._started_at = time.monotonic()
        self._from = ""
        self._pending = Acknowledgements(UNACKNOWLEDGED)
        self._assembler = Assembler(self._wanted, limit_bytes=_ARRIVING_BYTES, taken=self._taken)
        self._sender = Sender(self.manifest.tensors, journal, self._assembler, self._publish_input, pack=wishes.pack)
        self._events: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1024)
        self.planning.resume()
        self._connection = link(
            MANAGER,
            received=lambda *event: self._events.put(lambda: self._receive(*event)),
            connected=self._connected,
        )
        self.health = Health(self._connection, self._crew, self.planning)

    @property
    def _scheduler(self) -> Scheduler | None:
        return self.planning.scheduler

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Serve until interrupted, or until ``until``, asked every moment, says so.

        Raises `HubError`, `OutputError` when the journal cannot be written.
        """
        self._connection.open(patient=True)
        self._crew.open(self._connection)
        try:
            next_tick = time.monotonic()
            while True:
                with suppress(queue.Empty):
                    self._events.get(timeout=max(0.0, next_tick - time.monotonic()))()
                    self._watch()
                if time.monotonic() >= next_tick:
                    if until():
                        return
                    self._tick()
                    next_tick = time.monotonic() + _TICK_S
                if self._scheduler:
                    self._intake.admit(len(self._scheduler.jobs))
                    for lease in self._scheduler.tasks(time.monotonic()):
                        job = self._scheduler.jobs[lease.key.job]
                        self._reporter.trace.sent(lease.key, lease.worker)
                        self._sender.send(lease, job, self._scheduler.graph.inputs[lease.key.share])
        finally:
            self._connection.close()
            self._crew.close()
            while not self._events.empty():  # who waits to put one more must not wait for ever
                self._events.get_nowait()

    def ask(self, question: Callable[[], _Answer]) -> Future[_Answer]:
        """Have something done on the manager's thread, for whoever is on another; `status` and `planning` are for it."""
        future: Future[_Answer] = Future()

        def answer() -> None:
            try:
                future.set_result(question())
            except Exception as error:
                future.set_exception(error)

        self._events.put(answer)
        return future

    def status(self) -> Status:
        """How it is now."""
        return self._reporter.status(self._scheduler, self._assembler.dropped)

    def spans(self, job: str) -> list[Span]:
        """What a job took."""
        return self._reporter.trace.of(job)

    def cancel(self, job: str) -> None:
        """Give up a job, whether it is announced or under way. Not thread-safe: call it through `ask`."""
        self._intake.withdraw(job)
        self._assembler.forget(job)
        if self._scheduler and job in self._scheduler.jobs:
            self._answers.fail(job, "the job was cancelled")
            self._journal.forget(job)

    def _publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        self._connection.publish(topic, payload, expiry_s=expiry_s)

    def _publish_input(self, lease: Lease, payload: bytes) -> None:
        self._publish(topic(Role.WORKER, lease.worker, "input"), payload, int(self._wishes.lease_s) + 1)

    def _connected(self) -> None:
        """Subscribe (on the connection's thread)."""
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        self._events.put(self._crew.hub_is_back)

    def _receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        found = parse_topic(text)
        try:
            if found is None:
                raise Dropped("unknown topic")
            role, name, last = found
            self._from = f"{role}/{name}"
            if last == "output":
                self._crew.seen(name)
            if last == "state":
                if payload:
                    self._on_state(name, messages.decode(payload, messages.WorkerState))
            elif payload.startswith(MAGIC):
                self._on_frame(payload, acknowledge)
                return  # which acknowledges when the tensor is written down
            elif last == "output":
                self._on_answer(name, messages.decode_answer(payload))
            else:
                self._on_client(name, messages.decode_request(payload))
        except Dropped as reason:
            self._assembler.dropped[str(reason)] += 1
            log.warning("dropped a message of %d bytes on %s: %s", len(payload), text, reason)
        acknowledge()

    def _on_answer(self, name: str, message: Failed | Timed | Pulse) -> None:
        if isinstance(message, Pulse):
            self._crew.pulse(name, message)
        elif isinstance(message, Timed):
            self._reporter.trace.timed(name, message)
        else:
            self._answers.failed(name, message)

    def _on_client(self, name: str, message: messages.Submit | messages.Delivered) -> None:
        starting = time.monotonic() < self._started_at + _START_S
        if self._scheduler is None and starting and isinstance(message, messages.Submit):
            log.info("a job must wait for workers; its client asks again")
        else:
            self._intake.heard(name, message, workers=self._scheduler is not None)

    def _on_state(self, name: str, state: messages.WorkerState) -> None:
        change = self._crew.heard(name, state)
        if change.lost:
            self._lost(name)
        if change.joined:
            self._say(f"{name} is there: {self._crew.describe(name)}")
        if change.joined or change.other:
            self.planning.changed()
        if self._scheduler:
            if change.reconnected:
                self._scheduler.release(name)
            self._scheduler.holders.loading(name, change.loading)
            self._scheduler.holders.loaded(name, change.loaded)

    def _lost(self, name: str) -> None:
        shares = self._scheduler.lost(name) if self._scheduler else []
        self._say(f"{name} is gone" + (f": shares {', '.join(map(str, shares))} need another" if shares else ""))
        self.planning.changed()
        if self._scheduler and self._scheduler.jobs:
            self.planning.mend()

    def _on_frame(self, payload: bytes, acknowledge: Callable[[], None]) -> None:
        before = self._assembler.dropped.total()
        arrival = self._assembler.add(payload)
        if self._assembler.dropped.total() > before:
            acknowledge()
            return
        key = parse(payload)[0].key
        self._pending.hold(key, acknowledge)
        if arrival is not None:
            if key.share < 0:
                if (new := self._intake.arrived(arrival)) and self._scheduler:
                    self._scheduler.add(new.job, new.client, new.digests)
                    self._reporter.trace.accepted(new.job)
            else:
                self._answers.arrived(self._from.partition("/")[2], arrival)
            self._pending.give(key)

    def _wanted(self, key: Key, tensor: str) -> TensorRecord:
        """What may come from whoever sends: a client's inputs, a worker's outputs of what it was asked for."""
        role, name = self._from.split("/")
        if key.share < 0:
            return self._intake.wanted(key, tensor, name if role == Role.CLIENT else "")
        if role != Role.WORKER or self._scheduler is None:
            raise Dropped("never asked for")
        self._scheduler.check(name, key)
        if tensor not in self._scheduler.graph.outputs[key.share]:
            raise Dropped("unknown tensor")
        return self.manifest.tensors[tensor]

    def _taken(self, head: Head, chunk: memoryview) -> None:
        if head.key.share >= 0 and self._scheduler:
            self._reporter.trace.begun(head.key)
            self._scheduler.begun(head.key, head.tensor)
            self._sender.pass_on(head, chunk, self._scheduler.leases)

    def _on_outvoted(self, name: str, key: Key) -> None:
        self._say(f"{name} answered share {key.share} of job {key.job} other than most: it is set aside")
        self._crew.set_aside(name)
        self._lost(name)

    def _on_end(self, job: str) -> None:
        self._assembler.forget(job)
        self._sender.forget(job)
        self._intake.answer(job)

    def _tick(self) -> None:
        for name in self._crew.lapsed():
            self._lost(name)
        if self._scheduler:
            self._scheduler.expire(time.monotonic())
            for job, share in self._scheduler.exhausted():
                self._answers.fail(job, f"share {share} was tried too often")
        for job in self._intake.expire():
            self._assembler.forget(job)
        self.planning.ensure()
        self._reporter.report(self._connection, self._scheduler, self._assembler.dropped)
