"""The `hyps.runtime.execution.engine.Engine` of a cluster: inputs go to a manager, outputs come back.

A job has a number of its own that the client makes. What is not answered is said again, and the manager knows it by that
number: a hub or a manager that was killed meanwhile costs time, and no job is computed twice or answered twice. Several jobs
are under way at a time, so that the partitions form a pipeline; their outputs come in the order of the inputs.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest, TensorRecord
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join, read_join
from hyps.runtime.cluster.broker.link import Link, LinkFactory
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Rejected
from hyps.runtime.cluster.protocol.frames import MAGIC, Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.messages import Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, topic
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import HubError, InputError
from hyps.runtime.execution.batch import StreamResult
from hyps.runtime.execution.executor import Outputs, StepProfile, check_inputs
from hyps.runtime.execution.session import memory_of, to_numpy

#: Images under way at a time.
JOB_WINDOW = 8
#: An accepted job's result may take long; a job that nobody accepts is said again, for so many seconds.
_AGAIN_S, _SILENCE_S = 2.0, 30.0
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Job:
    """One input under way: when it began and was heard of last, and what there is of its result."""

    number: int
    inputs: Mapping[str, NDArray[Any]]
    began: float
    heard: float
    outputs: Outputs = field(default_factory=dict)
    error: InputError | None = None


class ClusterEngine:
    """Computes a bundle's outputs at the cluster behind a hub; the bundle's manifest alone is needed here.

    The hub is named by its address or a join file, or there is a ``link`` to it.
    """

    def __init__(self, bundle: Path, hub: str | None, join_file: Path | None, *, link: LinkFactory | None = None) -> None:
        self._manifest = read_manifest(bundle)
        self._bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        join = read_join(join_file) if join_file else Join(hub=hub or "")
        if hub and join_file:
            join = Join(hub=hub, name=join.name, password=join.password, authority=join.authority)
            if not join.address.tls:
                raise HubError("the join file's secret would travel unencrypted: give --engine as mqtts://")
        name = join.name or f"c{secrets.token_hex(8)}"
        self._submit_topic, self._result_topic = topic(Role.CLIENT, name, "submit"), topic(Role.CLIENT, name, "result")
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._changed = threading.Condition()  # of the jobs, which two threads look at
        self._answered = False
        self._fault: HubError | None = None
        self._events: queue.Queue[bytes | None] = queue.Queue(maxsize=1024)
        result_bytes = sum(self._manifest.tensors[output.name].nbytes for output in self._manifest.outputs)
        self._assembler = Assembler(self._expected_record, limit_bytes=max(2 * result_bytes, 64 << 20))
        connect = link or partial(Connection, join)
        self._connection: Link = connect(name, received=self._receive, connected=self._connected)
        self._connection.open()
        threading.Thread(target=self._listen, name="replies", daemon=True).start()

    #: Nothing is kept in files here.
    spilled_bytes = 0

    @property
    def manifest(self) -> Manifest:
        """What the cluster runs."""
        return self._manifest

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        watch: Callable[[StepProfile], None] | None = None,
        *,
        again: bool = False,
        job: str | None = None,
    ) -> Outputs:
        """The model's outputs by name; ``job`` is its number, 32 hexadecimal digits.

        Raises `InputError` for wrong inputs, `HubError` where nobody computes them.
        """
        (done,) = self.stream([inputs], only=job)
        if done.error:
            raise done.error
        return done.outputs

    def stream(
        self, inputs: Iterable[Mapping[str, NDArray[Any]]], window: int = JOB_WINDOW, *, only: str | None = None
    ) -> Iterator[StreamResult]:
        """What becomes of each of ``inputs``, in their order; ``window`` of them are under way at a time.

        ``only`` is the number of the only job. Raises `InputError` for wrong inputs, `HubError` where nobody computes them.
        """
        source = enumerate(inputs)
        more = True
        began = time.monotonic()
        try:
            while more or self._jobs:
                while more and len(self._jobs) < window and not self._first_finished():
                    number, sample = next(source, (0, None))
                    more = sample is not None
                    if sample is not None:
                        check_inputs(self._manifest, sample)
                        self._begin(only or secrets.token_hex(16), number, sample)
                with self._changed:
                    while self._jobs and not self._first_finished():
                        self._changed.wait(_AGAIN_S)
                        if self._fault:
                            raise self._fault
                        if not self._answered and time.monotonic() - began > _SILENCE_S:
                            raise HubError("no manager answers at this hub; start 'hyps-manager DIR --hub URL'")
                    job = self._jobs.popitem(last=False)[1] if self._jobs else None
                if job:
                    seconds = time.monotonic() - job.began
                    yield StreamResult(number=job.number, outputs=self._ordered(job), error=job.error, compute_s=seconds)
        finally:
            with self._changed:
                self._jobs.clear()

    def room_bytes(self) -> int:
        """What the bundle's budget leaves for reading an input."""
        return self._manifest.budget_bytes - memory().resident_bytes

    def make_room(self) -> None:
        """There is nothing to give back."""

    def close(self) -> None:
        """Take leave of the hub, when what was said has been sent."""
        self._connection.close()
        self._events.put(None)

    def _begin(self, name: str, number: int, inputs: Mapping[str, NDArray[Any]]) -> None:
        now = time.monotonic()
        with self._changed:
            self._jobs[name] = _Job(number=number, inputs=inputs, began=now, heard=now)
        self._say(Submit(job=name, bundle=self._bundle_sha256))

    def _first_finished(self) -> bool:
        return bool(self._jobs) and self._finished(next(iter(self._jobs)))

    def _finished(self, name: str) -> bool:
        job = self._jobs[name]
        return job.error is not None or len(job.outputs) == len(self._manifest.outputs)

    def _ordered(self, job: _Job) -> Outputs:
        return {} if job.error else {output.name: job.outputs[output.name] for output in self._manifest.outputs}

    def _listen(self) -> None:
        """(On a thread of its own.) Inputs go out as soon as they are asked for, whatever the caller does meanwhile."""
        payload: bytes | None = b""
        while payload is not None:
            try:
                payload = self._events.get(timeout=_AGAIN_S)
            except queue.Empty:
                payload = b""
            with self._changed:
                try:
                    if payload:
                        self._take(payload)
                    self._say_again()
                except HubError as fault:  # the link has ended
                    self._fault = fault
                self._changed.notify_all()

    def _say_again(self) -> None:
        """What was not heard of for a while: who was killed may have forgotten it."""
        now = time.monotonic()
        for name, job in self._jobs.items():
            if now - job.heard > _AGAIN_S and not self._finished(name):
                job.heard = now
                self._say(Submit(job=name, bundle=self._bundle_sha256))

    def _take(self, payload: bytes) -> None:
        if payload.startswith(MAGIC):
            result = self._assembler.add(MANAGER, payload)
            if isinstance(result, Rejected):
                log.warning("dropped a message of %d bytes: %s", len(payload), result.reason)
            elif isinstance(result, Complete):
                received = result.received
                self._jobs[received.key.job].outputs[received.tensor] = to_numpy(to_value(received.data, received.record))
                if self._finished(received.key.job):
                    self._say(Delivered(job=received.key.job))
            self._answered = True
            return
        try:
            message = messages.decode_reply(payload)
        except Rejection as reason:
            log.warning("dropped a message of %d bytes: %s", len(payload), reason)
            return
        self._answered = True
        known = self._jobs.get(message.job)
        if known is None or self._finished(message.job):
            return
        known.heard = time.monotonic()
        if isinstance(message, Refused):
            known.error = InputError(message.reason)
            self._say(Delivered(job=message.job))
        elif isinstance(message, SendInputs):
            self._send(message, known.inputs)

    def _send(self, asked: SendInputs, inputs: Mapping[str, NDArray[Any]]) -> None:
        key = Key(job=asked.job, sub_bundle=-1, attempt=0)
        for tensor, array in inputs.items():
            for frame in encode_tensor(
                key, tensor, self._manifest.tensors[tensor], memory_of(array), compress=asked.compress
            ):
                self._connection.publish(self._submit_topic, frame)

    def _say(self, message: messages.Message) -> None:
        self._connection.publish(self._submit_topic, messages.encode_message(message))

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """(On the connection's thread.) The manager keeps the result until it hears that we have it."""
        acknowledge()
        self._events.put(payload)

    def _connected(self) -> None:
        self._connection.subscribe([self._result_topic])

    def _expected_record(self, sender: str, key: Key, tensor: str) -> TensorRecord:
        if key.job not in self._jobs or tensor not in {output.name for output in self._manifest.outputs}:
            raise Rejection("not this job's")
        return self._manifest.tensors[tensor]
