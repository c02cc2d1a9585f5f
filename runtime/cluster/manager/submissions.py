"""Handle what clients submit: ask for a job's inputs when there is room, and forget its result when it is delivered.

A client announces a job in a few bytes, and sends its inputs when it is asked for them. This bounds the inputs in flight,
at the hub and here, however many clients there are and however many images they have (back-pressure).

A job may be the rest of an inference behind an early exit (Seifeddine, section 3.3): its inputs are then what is live there.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.manager.announcements import Announced, Announcements
from hyps.runtime.cluster.manager.answers import MAX_OPEN_JOBS, Answers, Publish
from hyps.runtime.cluster.manager.client_policies import ClientPolicies
from hyps.runtime.cluster.manager.exit_places import CutExits, ExitPlaces, SkippedBefore
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.client_messages import (
    Accepted,
    ClientMessage,
    Delivered,
    Ping,
    Pong,
    Refused,
    SendInputs,
    Submit,
)
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.transfer.journal import Journal

if TYPE_CHECKING:
    from hyps.runtime.exits.policies import ExitPolicy

#: Jobs whose inputs are on their way: of one client, of all, and the bytes of these inputs; one job always is.
_MAX_SENDING_OF_CLIENT, _MAX_SENDING, SENDING_BYTES = 8, 16, 256 << 20
#: If a job's inputs stop coming, its client is asked again after _QUIET_S, and the job is dropped after _SENDING_S. If they
#: come slower than _LEAST_BYTES_PER_S, the job is dropped as well: it keeps others waiting.
_SENDING_S, _QUIET_S, _LEAST_BYTES_PER_S = 30.0, 1.5, 10_000
#: A result that no client takes is kept for a day.
_KEPT_S = 24 * 3600


@dataclass(slots=True, kw_only=True)
class _Sending:
    """A job whose inputs are on their way since ``began``.

    ``heard``: when it was asked for them, or when their last chunk came. ``submit`` is its announcement.
    """

    client: str
    submit: Submit
    began: float
    heard: float = 0.0
    tensors: dict[str, bytearray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that was accepted, with the digests of its inputs by name; ``exact``: its result must not be decoded.

    ``skipped`` are the sub-bundles behind which it begins, ``after_exit`` the number of the exit, if it is a rest.
    ``policy`` is its client's.
    """

    job: str
    client: str
    digests: dict[str, bytes]
    exact: bool
    skipped: tuple[int, ...]
    after_exit: int | None
    policy: ExitPolicy | None


class Submissions:
    """The jobs that clients have announced to one manager, and those whose inputs are on their way.

    ``cuts`` is asked to cut runs of steps where an inference is to begin; until they are cut, its announcement waits.
    """

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        journal: Journal,
        publish: Publish,
        cuts: CutExits,
        *,
        compress: bool = False,
    ) -> None:
        self._places = ExitPlaces(manifest, cuts)
        self._manifest, self._bundle_sha256, self._journal, self._publish = manifest, bundle_sha256, journal, publish
        self._compress = compress
        self._announced = Announcements()
        self._policies = ClientPolicies(manifest)
        self._sending: dict[str, _Sending] = {}
        #: What sends results.
        self.answers = Answers(manifest, journal, publish, compress=compress)
        places = (None, *range(1, len(manifest.exits)))
        self._inputs = {place: rest_inputs(manifest, place) for place in places}
        self._input_bytes = max(sum(manifest.tensors[name].nbytes for name in names) for names in self._inputs.values())
        self._most_sending = max(1, min(_MAX_SENDING, SENDING_BYTES // max(1, self._input_bytes)))

    @property
    def arriving_bytes(self) -> int:
        """The most bytes of inputs that arrive at a time."""
        return self._most_sending * self._input_bytes

    def handle(self, client: str, message: ClientMessage, skipped: SkippedBefore | None) -> None:
        """Handle a client's message; ``skipped`` is None without workers. Raises `Rejection` for another's job."""
        if isinstance(message, Ping):
            self._reply(client, self._pong(message, skipped))
            return
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
                self.answers.send(message.job)
        elif problem := self._problem(message.bundle, skipped, message.after_exit):
            self._reply(client, Refused(job=message.job, reason=problem))
        elif sending := self._sending.get(message.job):
            if time.monotonic() - sending.heard > _QUIET_S:  # the request for its inputs, or the inputs, were lost
                self._request_inputs(message.job, sending)
        else:
            self._announce(client, *self._policies.keep(message))

    def _announce(self, client: str, message: Submit, problem: str) -> None:
        if problem:
            self._reply(client, Refused(job=message.job, reason=problem))
        elif not self._announced.add(client, message):
            self._reply(client, Refused(job=message.job, reason="too many jobs wait; try again later"))

    def _problem(self, bundle: str, skipped: SkippedBefore | None, after_exit: int | None = None) -> str:
        """Return why a job for this bundle, behind this exit, cannot be computed now, or an empty text."""
        if bundle != self._bundle_sha256:
            return "the manager runs another bundle than this one"
        if skipped is None:
            return "no worker has joined the manager yet; start hyps-worker"
        if after_exit not in self._inputs:
            return f"no inference goes on behind exit {after_exit}: the bundle has {len(self._manifest.exits)} exits"
        return self._places.problem(after_exit, skipped)

    def _pong(self, ping: Ping, skipped: SkippedBefore | None) -> Pong:
        """Return the answer to a ping; runs are cut ahead where its client may have inferences begin."""
        problem = self._problem(ping.bundle, skipped)
        if problem or skipped is None:
            return Pong(number=ping.number, problem=problem)
        there, waits = self._places.opened(ping.exits, skipped)
        return Pong(number=ping.number, exits=there, waits=waits)

    def admit(self, open_jobs: int, skipped: SkippedBefore) -> None:
        """Ask for the inputs of the next jobs, as many as there is room for; each client has few on their way.

        Those that begin where runs of steps are being cut wait until that is done.
        """
        waiting: list[Announced] = []
        while len(self._sending) < min(self._most_sending, MAX_OPEN_JOBS - open_jobs):
            sending = Counter(each.client for each in self._sending.values())
            if (following := self._announced.take(sending, _MAX_SENDING_OF_CLIENT)) is None:
                break
            job = following.submit.job
            if job in self._sending or self._journal.job(job) is not None:
                continue
            if not self._places.are_cut_for(following.submit, skipped):
                waiting.append(following)
                continue
            self._sending[job] = _Sending(client=following.client, submit=following.submit, began=time.monotonic())
            self._request_inputs(job, self._sending[job])
        for each in waiting:
            if reason := self._problem(self._bundle_sha256, skipped, each.submit.after_exit):
                self._reply(each.client, Refused(job=each.submit.job, reason=reason))
            else:
                self._announced.add(each.client, each.submit)

    def expected_record(self, key: Key, tensor: str, client: str) -> TensorRecord:
        """Return the record that a client's input must have. Raises `Rejection` if the client was not asked for it."""
        sending = self._sending.get(key.job)
        if sending is None or sending.client != client or key.attempt:
            raise Rejection("not announced")
        if tensor not in self._inputs[sending.submit.after_exit]:
            raise Rejection("unknown tensor")
        sending.heard = time.monotonic()
        return self._manifest.tensors[tensor]

    def arrived(self, received: ReceivedTensor, generation: int, skipped: SkippedBefore) -> NewJob | None:
        """Take an input; return its job, of this generation, when all inputs are there and written down."""
        job = received.key.job
        sending = self._sending[job]
        sending.tensors[received.tensor] = received.data
        if sending.tensors.keys() < set(self._inputs[sending.submit.after_exit]):
            return None
        del self._sending[job]
        exact, after_exit = sending.submit.exact, sending.submit.after_exit
        before = self._places.skipped(after_exit, skipped)
        if before is None:  # the runs of steps have changed since it was announced
            problem = self._problem(self._bundle_sha256, skipped, after_exit)
            reason = problem or "the runs of steps have changed while it was sent"
            self._reply(sending.client, Refused(job=job, reason=reason))
            return None
        digests = self._journal.accept(job, sending.client, sending.tensors, generation, before, exact=exact)
        self._reply(sending.client, Accepted(job=job))
        return NewJob(
            job=job,
            client=sending.client,
            digests=digests,
            exact=exact,
            skipped=before,
            after_exit=after_exit,
            policy=self._policies.of(sending.submit),
        )

    def withdraw(self, job: str) -> None:
        """Forget a job that is announced, or whose inputs are on their way."""
        self._announced.withdraw(job)
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

    def _request_inputs(self, job: str, sending: _Sending) -> None:
        sending.heard = time.monotonic()
        self._reply(sending.client, SendInputs(job=job, compress=self._compress))

    def _reply(self, client: str, message: Message) -> None:
        self.answers.reply(client, message)
