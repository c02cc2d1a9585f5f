"""What clients want of a manager: jobs announced, their inputs asked for when there is room, results sent until they arrive.

A client announces a job in a few bytes and sends its inputs when it is told to: so inputs in flight are bounded at the hub
and here, whoever comes with however many images (back-pressure).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Arrival
from hyps.runtime.cluster.protocol.frames import Dropped, Key, cut
from hyps.runtime.cluster.protocol.messages import Accepted, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.journal import Journal

#: Accepted jobs; more wait with their clients, not on the manager's disk.
MAX_OPEN_JOBS = 1000
#: Jobs whose inputs are on their way.
_MOST_SENDING = 16
#: Jobs that wait for their turn to send; a client that is there announces its own again every two seconds.
_MOST_ANNOUNCED, _ANNOUNCED_S = 10_000, 10.0
_SENDING_S, _QUIET_S = 30.0, 1.5
_EXPIRY_S = 600
_KEPT_S = 24 * 3600

#: Publishes a payload at a topic.
Publish = Callable[[str, bytes, int], None]


@dataclass(slots=True, kw_only=True)
class _Sending:
    """A job whose inputs are on their way; when it was asked for them, or one of their chunks came."""

    client: str
    heard: float = 0.0
    tensors: dict[str, bytearray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that was accepted: its inputs' digests by name."""

    job: str
    client: str
    digests: dict[str, bytes]


class Submissions:
    """All clients."""

    def __init__(
        self, manifest: Manifest, bundle_sha256: str, journal: Journal, publish: Publish, *, pack: bool = False
    ) -> None:
        self._manifest, self._bundle_sha256, self._journal, self._publish = manifest, bundle_sha256, journal, publish
        self._pack = pack
        self._announced: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._sending: dict[str, _Sending] = {}

    def heard(self, client: str, message: Submit | Delivered, *, workers: bool) -> None:
        """A client said something; jobs are refused where no ``workers`` are there to compute them."""
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
                self.answer(message.job)
        elif message.bundle != self._bundle_sha256:
            self._tell(client, Refused(job=message.job, reason="the manager runs another bundle than this one"))
        elif not workers:
            reason = "no worker has joined the manager yet; start hyps-worker"
            self._tell(client, Refused(job=message.job, reason=reason))
        elif len(self._announced) >= _MOST_ANNOUNCED:
            self._tell(client, Refused(job=message.job, reason="too many jobs wait; try again later"))
        elif sending := self._sending.get(message.job):
            if time.monotonic() - sending.heard > _QUIET_S:  # what it was told, or what it sent, is lost
                self._ask(message.job, sending)
        else:
            self._announced[message.job] = (client, time.monotonic())

    def admit(self, open_jobs: int) -> None:
        """Have the next jobs' inputs sent, as many as there is room for."""
        while self._announced and len(self._sending) < min(_MOST_SENDING, MAX_OPEN_JOBS - open_jobs):
            job, (client, said_at) = self._announced.popitem(last=False)
            now = time.monotonic()
            if now - said_at < _ANNOUNCED_S:  # else its client is gone
                self._sending[job] = _Sending(client=client)
                self._ask(job, self._sending[job])

    def wanted(self, key: Key, tensor: str, client: str) -> TensorRecord:
        """Of which type an input must be; raises `Dropped` where this client was not told to send it."""
        sending = self._sending.get(key.job)
        if sending is None or sending.client != client:
            raise Dropped("not announced")
        sending.heard = time.monotonic()
        if tensor not in self._manifest.inputs:
            raise Dropped("unknown tensor")
        return self._manifest.tensors[tensor]

    def arrived(self, arrival: Arrival) -> NewJob | None:
        """An input arrived: the job, when it has all, and they are written down."""
        job = arrival.key.job
        sending = self._sending[job]
        sending.tensors[arrival.tensor] = arrival.data
        if sending.tensors.keys() < set(self._manifest.inputs):
            return None
        del self._sending[job]
        digests = self._journal.accept(job, sending.client, sending.tensors)
        self._tell(sending.client, Accepted(job=job))
        return NewJob(job=job, client=sending.client, digests=digests)

    def withdraw(self, job: str) -> None:
        """Forget a job that is announced, or whose inputs are on their way."""
        self._announced.pop(job, None)
        self._sending.pop(job, None)

    def expire(self) -> list[str]:
        """Jobs whose inputs never came, which are forgotten; so are results that nobody took in a day."""
        for job in self._journal.undelivered(_KEPT_S):
            self._journal.forget(job)
        gone = [job for job, each in self._sending.items() if time.monotonic() - each.heard > _SENDING_S]
        for job in gone:
            del self._sending[job]
        return gone

    def answer(self, job: str) -> None:
        """Send a job's result, or why there is none, to its client."""
        record = self._journal.job(job)
        if record is None or record.state == "delivered":
            return
        if record.state == "failed":
            self._tell(record.client, Refused(job=job, reason=record.reason))
            return
        for output in self._manifest.outputs:
            data = memoryview(self._journal.read(record.tensors[output.name]))
            key, tensor = Key(job=job, share=-1, attempt=0), self._manifest.tensors[output.name]
            for frame in cut(key, output.name, tensor, data, pack=self._pack):
                self._publish(topic(Role.CLIENT, record.client, "result"), frame, _EXPIRY_S)

    def _ask(self, job: str, sending: _Sending) -> None:
        sending.heard = time.monotonic()
        self._tell(sending.client, SendInputs(job=job, pack=self._pack))

    def _tell(self, client: str, message: messages.Message) -> None:
        self._publish(topic(Role.CLIENT, client, "result"), messages.encode_message(message), _EXPIRY_S)
