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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hyps.runtime.cluster import messages
from hyps.runtime.cluster.connection import Connection
from hyps.runtime.cluster.crew import Crew
from hyps.runtime.cluster.frames import MAGIC, Arrival, Assembler, Dropped, Key, cut, parse
from hyps.runtime.cluster.join import Join
from hyps.runtime.cluster.journal import Journal
from hyps.runtime.cluster.messages import Accepted, Delivered, Failed, Refused, Submit
from hyps.runtime.cluster.planning import Planning
from hyps.runtime.cluster.scheduler import Lease, Scheduler
from hyps.runtime.cluster.topics import MANAGER, Role, parts, topic
from hyps.runtime.integrity import check_files, read_manifest
from hyps.runtime.manifest import MANIFEST_NAME, TensorRecord

#: Chunks that are not acknowledged yet, and tensors that are not whole: beyond it the oldest are acknowledged, which is
#: safe too, as leases end.
_UNACKNOWLEDGED = 256
_ARRIVING_BYTES = 256 << 20
_SESSION_S = 24 * 3600
_TICK_S = 0.2
#: More jobs are refused: clients wait, not the manager's disk.
MOST_JOBS = 1000
_EXPIRY_S = 600
#: A client that announces a job sends its inputs, and fetches its result, within so many seconds.
_SUBMIT_S, _KEPT_S = 60.0, 24 * 3600
_MOST_SUBMITTED = 16
#: Workers that are there have been heard by then.
_START_S = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submission:
    """A job that was announced, until its inputs are all there."""

    client: str
    until: float
    tensors: dict[str, bytearray] = field(default_factory=dict)


class Manager:
    """Serves one bundle until stopped."""

    def __init__(
        self,
        bundle: Path,
        join: Join,
        journal: Journal,
        *,
        least_workers: int = 1,
        settle_s: float = 2.0,
        lease_s: float = 120.0,
        listen: str | None = None,
        say: Callable[[str], None] = log.info,
    ) -> None:
        self.manifest = read_manifest(bundle)
        check_files(bundle, self.manifest)
        self._bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        self._journal = journal
        self._lease_s, self._say = lease_s, say
        self._crew = Crew(bundle, self.manifest, listen)
        self._planning = Planning(
            self.manifest,
            self._bundle_sha256,
            journal,
            self._crew,
            least_workers=least_workers,
            settle_s=settle_s,
            lease_s=lease_s,
            say=say,
        )
        self._started_at = time.monotonic()
        self._submitted: dict[str, _Submission] = {}
        self._sender = ""
        self._pending: dict[Key, list[Callable[[], None]]] = {}
        self._assembler = Assembler(self._wanted, limit_bytes=_ARRIVING_BYTES)
        self._events: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=1024)
        self._planning.resume()
        self._connection = Connection(
            join,
            MANAGER,
            received=lambda *event: self._events.put(lambda: self._receive(*event)),
            connected=self._connected,
            session_s=_SESSION_S,
            inflight=2 * _UNACKNOWLEDGED,
        )

    @property
    def _scheduler(self) -> Scheduler | None:
        return self._planning.scheduler

    def run(self) -> None:
        """Serve until interrupted. Raises `HubError`, `OutputError` when the journal cannot be written."""
        self._connection.open(patient=True)
        self._crew.open(self._connection)
        try:
            next_tick = time.monotonic()
            while True:
                with suppress(queue.Empty):
                    self._events.get(timeout=max(0.0, next_tick - time.monotonic()))()
                if time.monotonic() >= next_tick:
                    self._tick()
                    next_tick = time.monotonic() + _TICK_S
                self._hand_out()
        finally:
            self._connection.close()
            self._crew.close()

    def _connected(self) -> None:
        """Subscribe (on the connection's thread)."""
        self._connection.subscribe([topic(Role.WORKER, "+", "state"), topic(Role.WORKER, "+", "output")])
        self._connection.subscribe([topic(Role.CLIENT, "+", "submit")])
        self._events.put(self._crew.order_again)  # a hub that was killed has forgotten the orders

    def _receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        found = parts(text)
        try:
            if found is None:
                raise Dropped("unknown topic")
            role, name, last = found
            self._sender = f"{role}/{name}"
            if last == "state":
                self._on_state(name, payload)
            elif payload.startswith(MAGIC):
                self._on_frame(payload, acknowledge)
                return  # which acknowledges when the tensor is written down
            elif last == "output":
                self._on_failed(name, messages.decode(payload, Failed))
            else:
                self._on_client(name, messages.decode_request(payload))
        except Dropped as reason:
            self._assembler.dropped[str(reason)] += 1
            log.warning("dropped a message of %d bytes on %s: %s", len(payload), text, reason)
        acknowledge()

    def _on_state(self, name: str, payload: bytes) -> None:
        if not payload:
            return
        change = self._crew.heard(name, messages.decode(payload, messages.WorkerState))
        if change.lost and self._scheduler:
            shares = self._scheduler.lost(name)
            self._say(f"{name} is gone" + (f": shares {', '.join(map(str, shares))} need another" if shares else ""))
        if change.joined:
            self._say(f"{name} is there: {self._crew.describe(name)}")
        if change.lost or change.joined:
            self._planning.changed()
        if change.lost and self._scheduler and self._scheduler.jobs:
            self._planning.mend()
        if self._scheduler:
            if change.reconnected:
                self._scheduler.release(name)
            self._scheduler.loading(name, change.loading)
            self._scheduler.loaded(name, change.loaded)

    def _on_frame(self, payload: bytes, acknowledge: Callable[[], None]) -> None:
        before = self._assembler.dropped.total()
        arrival = self._assembler.add(payload)
        if self._assembler.dropped.total() > before:
            acknowledge()
            return
        key = parse(payload)[0].key
        self._pending.setdefault(key, []).append(acknowledge)
        if arrival is not None:
            if key.share < 0:
                self._on_input(arrival)
            else:
                self._on_output(arrival)
            for each in self._pending.pop(key, ()):
                each()
        while sum(map(len, self._pending.values())) > _UNACKNOWLEDGED:
            for each in self._pending.pop(next(iter(self._pending))):
                each()

    def _wanted(self, key: Key, tensor: str) -> TensorRecord:
        """What may come from whoever sends: a client's inputs, a worker's outputs of what it was asked for."""
        role, name = self._sender.split("/")
        if key.share < 0:
            submission = self._submitted.get(key.job)
            if role != Role.CLIENT or submission is None or submission.client != name:
                raise Dropped("not announced")
            if tensor not in self.manifest.inputs:
                raise Dropped("unknown tensor")
            return self.manifest.tensors[tensor]
        if role != Role.WORKER or self._scheduler is None:
            raise Dropped("never asked for")
        self._scheduler.check(name, key)
        if tensor not in self._scheduler.graph.outputs[key.share]:
            raise Dropped("unknown tensor")
        return self.manifest.tensors[tensor]

    def _on_client(self, client: str, message: Submit | Delivered) -> None:
        record = self._journal.job(message.job)
        if record and record.client != client:
            raise Dropped("another's job")
        if isinstance(message, Delivered):
            if record and record.state in ("done", "failed"):
                self._journal.forget(message.job)
        elif record:
            if record.state == "open":
                self._tell(client, Accepted(job=message.job))
            else:
                self._answer(message.job)
        elif self._scheduler is None and time.monotonic() < self._started_at + _START_S:
            log.info("a job must wait for workers; its client asks again")
        elif reason := self._refusal(client, message):
            self._tell(client, Refused(job=message.job, reason=reason))
        else:
            until = time.monotonic() + _SUBMIT_S
            self._submitted.setdefault(message.job, _Submission(client=client, until=until))

    def _refusal(self, client: str, message: Submit) -> str | None:
        if message.bundle != self._bundle_sha256:
            return "the manager runs another bundle than this one"
        if self._scheduler is None:
            return "no worker has joined the manager yet; start hyps-worker"
        if len(self._scheduler.jobs) >= MOST_JOBS:
            return "too many jobs wait; try again later"
        if sum(each.client == client for each in self._submitted.values()) >= _MOST_SUBMITTED:
            return "too many inputs are on their way; try again later"
        return None

    def _on_input(self, arrival: Arrival) -> None:
        job = arrival.key.job
        submission = self._submitted[job]
        submission.tensors[arrival.tensor] = arrival.data
        if submission.tensors.keys() < set(self.manifest.inputs):
            return
        del self._submitted[job]
        client = submission.client
        digests = self._journal.accept(job, client, submission.tensors)
        assert self._scheduler
        self._scheduler.add(job, client, digests)
        self._tell(client, Accepted(job=job))

    def _on_output(self, arrival: Arrival) -> None:
        assert self._scheduler
        key = arrival.key
        digest = self._journal.arrived(key.job, arrival.tensor, arrival.data)
        released = self._scheduler.arrived(key, arrival.tensor, digest)
        if released is None:
            return
        self._journal.complete(key.job, key.share, released)
        if self._scheduler.jobs[key.job].flow.finished:
            self._journal.finish(key.job, "done")
            self._close(key.job)

    def _on_failed(self, worker: str, message: Failed) -> None:
        if self._scheduler is None:
            raise Dropped("never asked for")
        self._scheduler.check(worker, message.key)
        if message.input:
            self._fail(message.key.job, message.reason)
        else:
            log.warning("%s could not compute share %d: %s", worker, message.key.share, message.reason)
            self._scheduler.failed(worker, message.key)

    def _fail(self, job: str, reason: str) -> None:
        self._journal.finish(job, "failed", reason)
        self._close(job)

    def _close(self, job: str) -> None:
        assert self._scheduler
        self._scheduler.remove(job)
        self._assembler.forget(job)
        self._answer(job)

    def _answer(self, job: str) -> None:
        """Send a job's result, or why there is none, to its client."""
        record = self._journal.job(job)
        if record is None or record.state == "delivered":
            return
        if record.state == "failed":
            self._tell(record.client, Refused(job=job, reason=record.reason))
            return
        for output in self.manifest.outputs:
            data = memoryview(self._journal.read(record.tensors[output.name]))
            for frame in cut(Key(job=job, share=-1, attempt=0), output.name, self.manifest.tensors[output.name], data):
                self._connection.publish(topic(Role.CLIENT, record.client, "result"), frame, expiry_s=_EXPIRY_S)

    def _tell(self, client: str, message: messages.Message) -> None:
        self._connection.publish(topic(Role.CLIENT, client, "result"), messages.encode(message), expiry_s=_EXPIRY_S)

    def _tick(self) -> None:
        if self._scheduler:
            self._scheduler.expire(time.monotonic())
            for job, share in self._scheduler.exhausted():
                self._fail(job, f"share {share} was tried too often")
        for job in [job for job, each in self._submitted.items() if each.until < time.monotonic()]:
            del self._submitted[job]
            self._assembler.forget(job)
        for job in self._journal.undelivered(_KEPT_S):
            self._journal.forget(job)
        self._planning.ensure()

    def _hand_out(self) -> None:
        if self._scheduler:
            for lease in self._scheduler.tasks(time.monotonic()):
                self._send(lease)

    def _send(self, lease: Lease) -> None:
        assert self._scheduler
        job = self._scheduler.jobs[lease.key.job]
        for name in self._scheduler.graph.inputs[lease.key.share]:
            data = memoryview(self._journal.read(job.tensors[name]))
            for frame in cut(lease.key, name, self.manifest.tensors[name], data):
                self._connection.publish(topic(Role.WORKER, lease.worker, "input"), frame, expiry_s=int(self._lease_s) + 1)
