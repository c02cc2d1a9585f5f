"""Exchange jobs with a manager through the hub: announce them, send inputs that are asked for, take outputs.

The client gives each job an identifier of its own. It resends whatever was not answered, and the manager recognises a job by
its identifier. Killing a hub or a manager therefore costs time, but no job is computed or answered twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.broker.link import Link, LinkFactory
from hyps.runtime.cluster.protocol import client_messages, messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Rejected
from hyps.runtime.cluster.protocol.client_messages import (
    Decoded,
    Delivered,
    Exited,
    Pong,
    Refused,
    SendInputs,
    Submit,
)
from hyps.runtime.cluster.protocol.frames import MAGIC, Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, topic
from hyps.runtime.cluster.submitted_job import SubmittedJob
from hyps.runtime.errors import HubError, InputError
from hyps.runtime.execution.session import memory_of, to_numpy
from hyps.runtime.execution.tensor import TensorValue

#: Seconds without news of a job until it is resubmitted; seconds without any answer until the client gives up.
_AGAIN_S, _SILENCE_S = 2.0, 30.0
#: Seconds between two looks at a link that may be gone.
CHECK_S = 0.05
_log = logging.getLogger(__name__)


class SubmittedJobs:
    """The jobs of one client that are under way, oldest first, and its link to the hub. ``name`` is the client's.

    If they are ``exact``, nothing of their results is decoded. ``patient`` waits without end for a hub that is not there
    yet. ``policy`` decides at exits, by its name and its file's content. No more than ``unsent_bytes`` of inputs are copied
    for the link at a time; None is no limit, for links without acknowledgements.
    """

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        name: str,
        link: LinkFactory,
        *,
        exact: bool = False,
        policy: tuple[str, bytes] = ("", b""),
        patient: bool = False,
        unsent_bytes: int | None = None,
    ) -> None:
        self._manifest, self._bundle_sha256, self._unsent_bytes = manifest, bundle_sha256, unsent_bytes
        self._announcement = partial(Submit, bundle=bundle_sha256, exact=exact, policy=policy[0], policy_content=policy[1])
        self._submit_topic, self._result_topic = topic(Role.CLIENT, name, "submit"), topic(Role.CLIENT, name, "result")
        self._jobs: OrderedDict[str, SubmittedJob] = OrderedDict()
        self._changed = threading.Condition()  # guards the jobs, which two threads use
        self._answered = False
        self._repeats = Tally()
        self._fault: HubError | None = None
        self._events: queue.Queue[bytes | None] = queue.Queue(maxsize=1024)
        result_bytes = sum(manifest.tensors[output.name].nbytes for output in manifest.outputs)
        self._assembler = Assembler(self._expected_record, limit_bytes=max(2 * result_bytes, 64 << 20))
        self._connection: Link = link(name, received=self._receive, connected=self._connected)
        self._connection.open(patient=patient)
        threading.Thread(target=self._listen, name="replies", daemon=True).start()

    def __len__(self) -> int:
        return len(self._jobs)

    def close(self) -> None:
        """Leave the hub after everything has been sent."""
        self._connection.close()
        self._events.put(None)

    def cancel(self) -> None:
        """Give up the jobs: `next_done`, which another thread calls, raises `HubError`."""
        with self._changed:
            self._fault = HubError("the inputs were given up")
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget the jobs."""
        with self._changed:
            self._jobs.clear()

    def begin(
        self, job: str, number: int, name: str, inputs: Mapping[str, TensorValue], after_exit: int | None = None
    ) -> SubmittedJob:
        """Announce a job for the input of this number and name; its inputs are sent when they are asked for.

        With ``after_exit``, they are `hyps.runtime.bundle.exits.rest_inputs`.
        """
        begun = SubmittedJob(number=number, name=name, inputs=inputs, after_exit=after_exit)
        with self._changed:
            self._jobs[job] = begun
        self._submit(job, begun)
        return begun

    def next_done(self, since: float) -> SubmittedJob | None:
        """Wait for the oldest job and take it; return None where no job is under way. Raises `HubError`."""
        with self._changed:
            while self._jobs and not self.first_finished():
                self._changed.wait(_AGAIN_S)
                if self._fault:
                    raise self._fault
                if not self._answered and time.monotonic() - since > _SILENCE_S:
                    raise HubError("no manager answers at this hub; start 'hyps-manager DIR --hub URL'")
            return self._jobs.popitem(last=False)[1] if self._jobs else None

    def first_finished(self) -> bool:
        """Return whether the oldest job is done."""
        return bool(self._jobs) and self._finished(next(iter(self._jobs)))

    def _finished(self, name: str) -> bool:
        return self._jobs[name].is_finished(self._manifest)

    def _listen(self) -> None:
        """Take messages and send inputs as soon as they are asked for, on a thread of its own."""
        payload: bytes | None = b""
        while payload is not None:
            try:
                payload = self._events.get(timeout=_AGAIN_S)
            except queue.Empty:
                payload = b""
            asked = None
            try:
                with self._changed:
                    if payload:
                        asked = self._take(payload)
                    self._submit_again()
                    self._changed.notify_all()
                if asked:
                    self._send(asked)
            except HubError as fault:  # the link has ended
                with self._changed:
                    self._fault = fault
                    self._changed.notify_all()

    def _submit_again(self) -> None:
        """Repeat the jobs that were not heard of for a while: a manager that was killed may have forgotten them."""
        now = time.monotonic()
        for name, job in self._jobs.items():
            if now - job.heard > _AGAIN_S and not self._finished(name):
                job.heard = now
                self._submit(name, job)

    def _take(self, payload: bytes) -> SendInputs | None:
        """Take a message; return one that asks for inputs."""
        if payload.startswith(MAGIC):
            result = self._assembler.add(MANAGER, payload)
            if isinstance(result, Rejected):
                self._log_rejection(payload, result.reason)
            else:
                self._jobs[result.header.key.job].hear()  # a large result takes long to arrive
            if isinstance(result, Complete):
                received = result.received
                self._jobs[received.key.job].outputs[received.tensor] = to_numpy(to_value(received.data, received.record))
                if self._finished(received.key.job):
                    self._publish(Delivered(job=received.key.job))
            self._answered = True
            return None
        try:
            message = client_messages.decode_reply(payload)
        except Rejection as reason:
            self._log_rejection(payload, str(reason))
            return None
        self._answered = True
        if isinstance(message, Pong):
            self._take_pong(message)
            return None
        known = self._jobs.get(message.job)
        if known is None or self._finished(message.job):
            return None
        known.hear()
        if isinstance(message, Refused):
            known.error = InputError(message.reason)
            self._publish(Delivered(job=message.job))
        elif isinstance(message, Decoded):
            known.decoded = message.note
        elif isinstance(message, Exited):
            if not (known.after_exit or 0) < message.exit <= len(self._manifest.exits):
                self._log_rejection(payload, "no exit of this job")
                return None
            known.exited = message
        return message if isinstance(message, SendInputs) else None

    def _take_pong(self, pong: Pong) -> None:
        """Take the manager's answer to a `Ping`."""

    def _is_unknown(self, job: str) -> None:
        """Take note of a part of the result of a job that is not under way."""

    def _log_rejection(self, payload: bytes, reason: str) -> None:
        if (times := self._repeats.count(reason)) is not None:
            _log.warning("dropped a message of %d bytes: %s%s", len(payload), reason, times)

    def _send(self, asked: SendInputs) -> None:
        """Send a job's inputs, as long as it is not given up."""
        key = Key(job=asked.job, sub_bundle=-1, attempt=0)
        if (job := self._jobs.get(asked.job)) is None:
            return
        began = time.monotonic()
        for tensor, value in job.inputs.items():
            record, memory = self._manifest.tensors[tensor], memory_of(value)
            for frame in encode_tensor(key, tensor, record, memory, compress=asked.compress):
                if not self._wait_for_room(asked.job, self._unsent_bytes):
                    return
                self._connection.publish(self._submit_topic, frame)
                job.advanced = time.monotonic()
                job.sent_bytes += len(frame)
        if self._wait_for_room(asked.job, self._unsent_bytes and 0):
            job.sent_s = time.monotonic() - began

    def _wait_for_room(self, job: str, unsent_bytes: int | None) -> bool:
        """Wait until no more than this is on its way; return whether the job is still wanted."""
        while unsent_bytes is not None and not self._connection.wait_until_sent(unsent_bytes, CHECK_S):
            if job not in self._jobs:
                return False
        return job in self._jobs

    def _submit(self, name: str, job: SubmittedJob) -> None:
        self._publish(self._announcement(job=name, after_exit=job.after_exit))

    def _publish(self, message: Message) -> None:
        self._connection.publish(self._submit_topic, messages.encode_message(message))

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Queue a message, on the connection's thread; the manager keeps a result until `Delivered` reaches it."""
        acknowledge()
        self._events.put(payload)

    def _connected(self) -> None:
        self._connection.subscribe([self._result_topic])

    def _expected_record(self, sender: str, key: Key, tensor: str) -> TensorRecord:
        if key.job not in self._jobs:
            self._is_unknown(key.job)
            raise Rejection("not this job's")
        if tensor not in {output.name for output in self._manifest.outputs}:
            raise Rejection("not this job's")
        return self._manifest.tensors[tensor]
