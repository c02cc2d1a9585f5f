"""Handle what clients submit: ask for a job's inputs when there is room, and send its result until it is delivered.

A client announces a job in a few bytes, and sends its inputs when it is asked for them. This bounds the inputs in flight,
at the hub and here, however many clients there are and however many images they have (back-pressure).
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.decoded_note import decode_note
from hyps.runtime.cluster.protocol.frames import Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.messages import Accepted, Decoded, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal

#: The most accepted jobs; further ones wait with their clients, not on the manager's disk.
MAX_OPEN_JOBS = 1000
#: Jobs whose inputs are on their way: of one client, of all, and the bytes of these inputs; one job always is.
_MAX_SENDING_OF_CLIENT, _MAX_SENDING, SENDING_BYTES = 8, 16, 256 << 20
#: The most jobs that wait for their turn to send. A client that is still there announces its jobs again every two seconds.
_MAX_ANNOUNCED_OF_CLIENT, _MAX_ANNOUNCED, _ANNOUNCED_S = 2000, 10_000, 10.0
#: If a job's inputs stop coming, its client is asked again after _QUIET_S, and the job is dropped after _SENDING_S. If they
#: come slower than _LEAST_BYTES_PER_S, the job is dropped as well: it keeps others waiting.
_SENDING_S, _QUIET_S, _LEAST_BYTES_PER_S = 30.0, 1.5, 10_000
_EXPIRY_S = 600
#: A result is not sent again in the time that it takes at this rate, however often its client asks.
_RESULT_BYTES_PER_S = 5_000_000
#: A result that no client takes is kept for a day.
_KEPT_S = 24 * 3600

#: Publishes a payload at a topic; the hub keeps it for the given seconds.
Publish = Callable[[str, bytes, int], None]


@dataclass(slots=True, kw_only=True)
class _Sending:
    """A job whose inputs are on their way since ``began``.

    ``heard``: when it was asked for them, or when their last chunk came. ``exact``: its result must not be decoded.
    """

    client: str
    exact: bool
    began: float
    heard: float = 0.0
    tensors: dict[str, bytearray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that was accepted, with the digests of its inputs by name; ``exact``: its result must not be decoded."""

    job: str
    client: str
    digests: dict[str, bytes]
    exact: bool


class Submissions:
    """The jobs that clients have announced to one manager, and those whose inputs are on their way."""

    def __init__(
        self, manifest: Manifest, bundle_sha256: str, journal: Journal, publish: Publish, *, compress: bool = False
    ) -> None:
        self._manifest, self._bundle_sha256, self._journal, self._publish = manifest, bundle_sha256, journal, publish
        self._compress = compress
        self._announced: OrderedDict[str, OrderedDict[str, tuple[float, bool]]] = OrderedDict()
        self._sending: dict[str, _Sending] = {}
        self._sent_until: OrderedDict[str, float] = OrderedDict()
        self._input_bytes = sum(manifest.tensors[name].nbytes for name in manifest.inputs)
        self._most_sending = max(1, min(_MAX_SENDING, SENDING_BYTES // max(1, self._input_bytes)))

    @property
    def arriving_bytes(self) -> int:
        """The most bytes of inputs that arrive at a time."""
        return self._most_sending * self._input_bytes

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
        elif sending := self._sending.get(message.job):
            if time.monotonic() - sending.heard > _QUIET_S:  # the request for its inputs, or the inputs, were lost
                self._request_inputs(message.job, sending)
        else:
            self._announce(client, message.job, exact=message.exact)

    def _announce(self, client: str, job: str, *, exact: bool) -> None:
        """Note when a client announced a job, and whether its result must be exact, by client and by job."""
        own: Mapping[str, tuple[float, bool]] = self._announced.get(client, {})
        if job not in own and (
            len(own) >= _MAX_ANNOUNCED_OF_CLIENT or sum(map(len, self._announced.values())) >= _MAX_ANNOUNCED
        ):
            self._reply(client, Refused(job=job, reason="too many jobs wait; try again later"))
        else:
            self._announced.setdefault(client, OrderedDict())[job] = time.monotonic(), exact

    def admit(self, open_jobs: int) -> None:
        """Ask for the inputs of the next jobs, as many as there is room for.

        Clients take turns, and each has few jobs on their way, so that one that announces thousands delays no other.
        """
        while self._announced and len(self._sending) < min(self._most_sending, MAX_OPEN_JOBS - open_jobs):
            sending = Counter(each.client for each in self._sending.values())
            client = min(self._announced, key=lambda name: sending[name])
            if sending[client] >= _MAX_SENDING_OF_CLIENT:
                return
            job, (announced_at, exact) = self._announced[client].popitem(last=False)
            self._announced.move_to_end(client)
            if not self._announced[client]:
                del self._announced[client]
            is_new = job not in self._sending and self._journal.job(job) is None
            if is_new and time.monotonic() - announced_at < _ANNOUNCED_S:  # else its client is gone
                self._sending[job] = _Sending(client=client, exact=exact, began=time.monotonic())
                self._request_inputs(job, self._sending[job])

    def expected_record(self, key: Key, tensor: str, client: str) -> TensorRecord:
        """Return the record that a client's input must have. Raises `Rejection` if the client was not asked for it."""
        sending = self._sending.get(key.job)
        if sending is None or sending.client != client or key.attempt:
            raise Rejection("not announced")
        if tensor not in self._manifest.inputs:
            raise Rejection("unknown tensor")
        sending.heard = time.monotonic()
        return self._manifest.tensors[tensor]

    def arrived(self, received: ReceivedTensor, generation: int) -> NewJob | None:
        """Take an input; return its job, of this generation, when all inputs are there and written down."""
        job = received.key.job
        sending = self._sending[job]
        sending.tensors[received.tensor] = received.data
        if sending.tensors.keys() < set(self._manifest.inputs):
            return None
        del self._sending[job]
        digests = self._journal.accept(job, sending.client, sending.tensors, generation, exact=sending.exact)
        self._reply(sending.client, Accepted(job=job))
        return NewJob(job=job, client=sending.client, digests=digests, exact=sending.exact)

    def withdraw(self, job: str) -> None:
        """Forget a job that is announced, or whose inputs are on their way."""
        for own in self._announced.values():
            own.pop(job, None)
        self._announced = OrderedDict((client, own) for client, own in self._announced.items() if own)
        self._sending.pop(job, None)

    def expire(self) -> list[str]:
        """Drop jobs whose inputs never came, and return them; drop results that no client took in a day."""
        for job in self._journal.undelivered(_KEPT_S):
            self._journal.forget(job)
        now, longest_s = time.monotonic(), _SENDING_S + self._input_bytes / _LEAST_BYTES_PER_S
        expired = [
            job for job, each in self._sending.items() if now - each.heard > _SENDING_S or now - each.began > longest_s
        ]
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
        now = time.monotonic()
        if now < self._sent_until.get(job, now):
            return  # it is on its way
        result_bytes = sum(self._manifest.tensors[output.name].nbytes for output in self._manifest.outputs)
        self._sent_until[job] = now + result_bytes / _RESULT_BYTES_PER_S
        if len(self._sent_until) > MAX_OPEN_JOBS:
            self._sent_until.popitem(last=False)
        if note := decode_note(record.reason):
            self._reply(record.client, Decoded(job=job, note=note))
        for output in self._manifest.outputs:
            try:
                data = memoryview(self._journal.read(record.tensors[output.name]))
            except DamagedTensor as fault:
                self._journal.finish(job, "failed", damage_reason(fault))
                self._reply(record.client, Refused(job=job, reason=damage_reason(fault)))
                return
            key, tensor = Key(job=job, sub_bundle=-1, attempt=0), self._manifest.tensors[output.name]
            for frame in encode_tensor(key, output.name, tensor, data, compress=self._compress):
                self._publish(topic(Role.CLIENT, record.client, "result"), frame, _EXPIRY_S)

    def _request_inputs(self, job: str, sending: _Sending) -> None:
        sending.heard = time.monotonic()
        self._reply(sending.client, SendInputs(job=job, compress=self._compress))

    def _reply(self, client: str, message: Message) -> None:
        self._publish(topic(Role.CLIENT, client, "result"), messages.encode_message(message), _EXPIRY_S)


def damage_reason(fault: DamagedTensor) -> str:
    """Return the reason for which a job fails that has lost a tensor."""
    return messages.shorten(f"{fault}; submit the input again")
