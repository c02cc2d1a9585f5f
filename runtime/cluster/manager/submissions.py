"""Handle what clients submit: ask for a job's inputs when there is room, and send its result until it is delivered.

A client announces a job in a few bytes, and sends its inputs when it is asked for them. This bounds the inputs in flight,
at the hub and here, however many clients there are and however many images they have (back-pressure).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.messages import Accepted, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.journal import Journal

#: Accepted jobs; more wait with their clients, not on the manager's disk.
MAX_OPEN_JOBS = 1000
#: Jobs whose inputs are on their way.
_MAX_SENDING = 16
#: Jobs that wait for their turn to send. A client that is still there announces its own again every two seconds.
_MAX_ANNOUNCED, _ANNOUNCED_S = 10_000, 10.0
#: If a job's inputs stop coming, its client is asked again after _QUIET_S, and the job is dropped after _SENDING_S.
_SENDING_S, _QUIET_S = 30.0, 1.5
_EXPIRY_S = 600
#: A result that no client takes is kept for a day.
_KEPT_S = 24 * 3600

#: Publishes a payload at a topic, for so many seconds.
Publish = Callable[[str, bytes, int], None]


@dataclass(slots=True, kw_only=True)
class _Sending:
    """A job whose inputs are on their way; ``heard``: when it was asked for them, or when their last chunk came."""

    client: str
    heard: float = 0.0
    tensors: dict[str, bytearray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that was accepted, with the digests of its inputs by name."""

    job: str
    client: str
    digests: dict[str, bytes]


class Submissions:
    """The jobs that clients have announced to one manager, and those whose inputs are on their way."""

    def __init__(
        self, manifest: Manifest, bundle_sha256: str, journal: Journal, publish: Publish, *, compress: bool = False
    ) -> None:
        self._manifest, self._bundle_sha256, self._journal, self._publish = manifest, bundle_sha256, journal, publish
        self._compress = compress
        self._announced: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._sending: dict[str, _Sending] = {}

    def handle(self, client: str, message: Submit | Delivered, *, has_workers: bool) -> None:
        """Handle a client's message; a job is refused if there are no workers. Raises `Rejection` for another's job."""
        record = self._journal.job(message.job)
        if record and record.client != client:
            raise Rejection("another's job")
        if isinstance(message, Delivered):
            if record and record.state in ("done", "failed"):
                self._journal.forget(message.job)
        elif record:
            if record.state == "open":
                self._reply(client, Accepted(job=message.job))
            else:
                self.answer(message.job)
        elif message.bundle != self._bundle_sha256:
            self._reply(client, Refused(job=message.job, reason="the manager runs another bundle than this one"))
        elif not has_workers:
            reason = "no worker has joined the manager yet; start hyps-worker"
            self._reply(client, Refused(job=message.job, reason=reason))
        elif len(self._announced) >= _MAX_ANNOUNCED:
            self._reply(client, Refused(job=message.job, reason="too many jobs wait; try again later"))
        elif sending := self._sending.get(message.job):
            if time.monotonic() - sending.heard > _QUIET_S:  # the request for its inputs, or the inputs, were lost
                self._request_inputs(message.job, sending)
        else:
            self._announced[message.job] = (client, time.monotonic())

    def admit(self, open_jobs: int) -> None:
        """Ask for the inputs of the next jobs, as many as there is room for."""
        while self._announced and len(self._sending) < min(_MAX_SENDING, MAX_OPEN_JOBS - open_jobs):
            job, (client, announced_at) = self._announced.popitem(last=False)
            if time.monotonic() - announced_at < _ANNOUNCED_S:  # else its client is gone
                self._sending[job] = _Sending(client=client)
                self._request_inputs(job, self._sending[job])

    def expected_record(self, key: Key, tensor: str, client: str) -> TensorRecord:
        """Return the record that a client's input must have. Raises `Rejection` if the client was not asked for it."""
        sending = self._sending.get(key.job)
        if sending is None or sending.client != client:
            raise Rejection("not announced")
        sending.heard = time.monotonic()
        if tensor not in self._manifest.inputs:
            raise Rejection("unknown tensor")
        return self._manifest.tensors[tensor]

    def arrived(self, received: ReceivedTensor) -> NewJob | None:
        """Take an input; return its job when all inputs are there and written down."""
        job = received.key.job
        sending = self._sending[job]
        sending.tensors[received.tensor] = received.data
        if sending.tensors.keys() < set(self._manifest.inputs):
            return None
        del self._sending[job]
        digests = self._journal.accept(job, sending.client, sending.tensors)
        self._reply(sending.client, Accepted(job=job))
        return NewJob(job=job, client=sending.client, digests=digests)

    def withdraw(self, job: str) -> None:
        """Forget a job that is announced, or whose inputs are on their way."""
        self._announced.pop(job, None)
        self._sending.pop(job, None)

    def expire(self) -> list[str]:
        """Drop jobs whose inputs never came, and return them; drop results that no client took in a day."""
        for job in self._journal.undelivered(_KEPT_S):
            self._journal.forget(job)
        expired = [job for job, each in self._sending.items() if time.monotonic() - each.heard > _SENDING_S]
        for job in expired:
            del self._sending[job]
        return expired

    def answer(self, job: str) -> None:
        """Send a job's result to its client, or the reason why there is none."""
        record = self._journal.job(job)
        if record is None or record.state == "delivered":
            return
        if record.state == "failed":
            self._reply(record.client, Refused(job=job, reason=record.reason))
            return
        for output in self._manifest.outputs:
            data = memoryview(self._journal.read(record.tensors[output.name]))
            key, tensor = Key(job=job, sub_bundle=-1, attempt=0), self._manifest.tensors[output.name]
            for frame in encode_tensor(key, output.name, tensor, data, compress=self._compress):
                self._publish(topic(Role.CLIENT, record.client, "result"), frame, _EXPIRY_S)

    def _request_inputs(self, job: str, sending: _Sending) -> None:
        sending.heard = time.monotonic()
        self._reply(sending.client, SendInputs(job=job, compress=self._compress))

    def _reply(self, client: str, message: messages.Message) -> None:
        self._publish(topic(Role.CLIENT, client, "result"), messages.encode_message(message), _EXPIRY_S)
