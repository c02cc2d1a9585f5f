"""The `hyps.runtime.execution.engine.Engine` of a cluster: sends inputs to a manager through the hub, yields the outputs.

The client gives each job an identifier of its own. It resends whatever was not answered, and the manager recognises a job by
its identifier. Killing a hub or a manager therefore costs time, but no job is computed or answered twice. Several jobs are
under way at a time, so that the sub-bundles form a pipeline; their outputs come in the order of the inputs.
"""

from __future__ import annotations

import hashlib
import itertools
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
from hyps.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join, resolve_join
from hyps.runtime.cluster.broker.link import Link, LinkFactory
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Rejected
from hyps.runtime.cluster.protocol.decoded_note import DecodedNote
from hyps.runtime.cluster.protocol.frames import MAGIC, Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.messages import Decoded, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, topic
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import HubError, InputError
from hyps.runtime.execution.engine import (
    ROOM_MARGIN_BYTES,
    Answer,
    EngineInput,
    GroupTiming,
    InferenceResult,
    InputTensors,
    Observer,
    failed,
    failed_run,
    in_memory,
    only_answer,
    run_in_turn,
)
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.execution.session import memory_of, to_numpy

#: Jobs under way at a time.
JOB_WINDOW = 8
#: Seconds without news of a job until it is resubmitted; seconds without any answer until the client gives up.
_AGAIN_S, _SILENCE_S = 2.0, 30.0
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Job:
    """One input under way: the times when it began and was last heard of, and the outputs that have arrived."""

    number: int
    name: str
    inputs: Mapping[str, NDArray[Any]]
    began: float
    heard: float
    outputs: Outputs = field(default_factory=dict)
    error: InputError | None = None
    decoded: DecodedNote | None = None


class ClusterEngine:
    """An engine that has a cluster compute; of the bundle it needs the manifest alone.

    The hub is named by its address or by a join file, unless the caller has a ``link`` to it. With ``repeat`` each input is
    computed that often, one after the other.
    """

    def __init__(
        self, bundle: Path, hub: str | None, join_file: Path | None, *, link: LinkFactory | None = None, repeat: int = 1
    ) -> None:
        self._manifest = read_manifest(bundle)
        check_sendable(self._manifest)
        self._bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        self._repeat = repeat
        join = Join(hub="") if link else resolve_join(hub, join_file, "--engine")
        name = join.name or f"c{secrets.token_hex(8)}"
        self._submit_topic, self._result_topic = topic(Role.CLIENT, name, "submit"), topic(Role.CLIENT, name, "result")
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._changed = threading.Condition()  # guards the jobs, which two threads use
        self._answered = False
        self._repeats = Tally()
        self._fault: HubError | None = None
        self._events: queue.Queue[bytes | None] = queue.Queue(maxsize=1024)
        result_bytes = sum(self._manifest.tensors[output.name].nbytes for output in self._manifest.outputs)
        self._assembler = Assembler(self._expected_record, limit_bytes=max(2 * result_bytes, 64 << 20))
        connect = link or partial(Connection, join)
        self._connection: Link = connect(name, received=self._receive, connected=self._connected)
        self._connection.open()
        threading.Thread(target=self._listen, name="replies", daemon=True).start()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._manifest

    def run(
        self,
        inputs: Iterable[EngineInput],
        observer: Observer | None = None,
        *,
        window: int = JOB_WINDOW,
        job: str | None = None,
    ) -> Iterator[InferenceResult]:
        """Yield results in the order of the inputs; the result of an unreadable input comes at once.

        ``window`` inputs are under way at a time. ``job`` is the identifier of the only input's job, 32 hexadecimal digits.
        Raises `HubError` where nobody computes them.
        """
        observer = observer or Observer()
        if self._repeat == 1:
            return self._stream(inputs, observer, window, job)
        return run_in_turn(inputs, self._read, self._run_alone, observer, self._repeat)

    def close(self) -> None:
        """Leave the hub after everything has been sent."""
        self._connection.close()
        self._events.put(None)

    def cancel(self) -> None:
        """Give up the inputs under way: `run`, which another thread iterates over, raises `HubError`."""
        with self._changed:
            self._fault = HubError("the inputs were given up")
            self._changed.notify_all()

    def _stream(
        self, inputs: Iterable[EngineInput], observer: Observer, window: int, only: str | None
    ) -> Iterator[InferenceResult]:
        numbers, source = itertools.count(), iter(inputs)
        more, count, began = True, 0, time.perf_counter()
        since = time.monotonic()
        try:
            while more or self._jobs:
                while more and len(self._jobs) < window and not self._first_finished():
                    following = next(source, None)
                    if following is None:
                        more = False
                        break
                    number, name = next(numbers), following.name
                    try:
                        tensors = self._read(following)
                    except InputError as error:
                        yield failed(number, name, error)
                        continue
                    count += 1
                    self._begin(only or secrets.token_hex(16), number, name, tensors)
                if job := self._next_done(since):
                    observer.run_done()
                    yield self._result(job)
        finally:
            with self._changed:
                self._jobs.clear()
        if count > 1:
            observer.group_done(GroupTiming(count=count, seconds=time.perf_counter() - began))

    def _next_done(self, since: float) -> _Job | None:
        """Wait for the oldest job and take it; return None where no job is under way. Raises `HubError`."""
        with self._changed:
            while self._jobs and not self._first_finished():
                self._changed.wait(_AGAIN_S)
                if self._fault:
                    raise self._fault
                if not self._answered and time.monotonic() - since > _SILENCE_S:
                    raise HubError("no manager answers at this hub; start 'hyps-manager DIR --hub URL'")
            return self._jobs.popitem(last=False)[1] if self._jobs else None

    def _run_alone(self, tensors: InputTensors, _again: bool) -> Answer:
        return only_answer(self._stream(in_memory([tensors]), Observer(), 1, None))

    def _read(self, source: EngineInput) -> InputTensors:
        """Return an input's tensors; the bundle's budget bounds the memory of this process too."""
        tensors = source.read(
            self._manifest, lambda: self._manifest.budget_bytes - memory().resident_bytes - ROOM_MARGIN_BYTES
        )
        check_inputs(self._manifest, tensors)
        return tensors

    def _begin(self, job: str, number: int, name: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        now = time.monotonic()
        with self._changed:
            self._jobs[job] = _Job(number=number, name=name, inputs=inputs, began=now, heard=now)
        self._publish(Submit(job=job, bundle=self._bundle_sha256))

    def _first_finished(self) -> bool:
        return bool(self._jobs) and self._finished(next(iter(self._jobs)))

    def _finished(self, name: str) -> bool:
        job = self._jobs[name]
        return job.error is not None or len(job.outputs) == len(self._manifest.outputs)

    def _result(self, job: _Job) -> InferenceResult:
        seconds = time.monotonic() - job.began
        if job.error:
            return failed_run(job.number, job.name, job.error, seconds)
        outputs = {output.name: job.outputs[output.name] for output in self._manifest.outputs}
        codes, bound = (job.decoded.codes, job.decoded.error_bound) if job.decoded else ((), 0.0)
        return InferenceResult(
            number=job.number,
            name=job.name,
            outputs=outputs,
            error=None,
            compute_s=seconds,
            decoded=codes,
            error_bound=bound,
        )

    def _listen(self) -> None:
        """Take messages and send inputs as soon as they are asked for, on a thread of its own."""
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
                    self._submit_again()
                except HubError as fault:  # the link has ended
                    self._fault = fault
                self._changed.notify_all()

    def _submit_again(self) -> None:
        """Repeat the jobs that were not heard of for a while: a manager that was killed may have forgotten them."""
        now = time.monotonic()
        for name, job in self._jobs.items():
            if now - job.heard > _AGAIN_S and not self._finished(name):
                job.heard = now
                self._publish(Submit(job=name, bundle=self._bundle_sha256))

    def _take(self, payload: bytes) -> None:
        if payload.startswith(MAGIC):
            result = self._assembler.add(MANAGER, payload)
            if isinstance(result, Rejected):
                self._log_rejection(payload, result.reason)
            else:
                self._jobs[result.header.key.job].heard = time.monotonic()  # a large result takes long to arrive
            if isinstance(result, Complete):
                received = result.received
                self._jobs[received.key.job].outputs[received.tensor] = to_numpy(to_value(received.data, received.record))
                if self._finished(received.key.job):
                    self._publish(Delivered(job=received.key.job))
            self._answered = True
            return
        try:
            message = messages.decode_reply(payload)
        except Rejection as reason:
            self._log_rejection(payload, str(reason))
            return
        self._answered = True
        known = self._jobs.get(message.job)
        if known is None or self._finished(message.job):
            return
        known.heard = time.monotonic()
        if isinstance(message, Refused):
            known.error = InputError(message.reason)
            self._publish(Delivered(job=message.job))
        elif isinstance(message, Decoded):
            known.decoded = message.note
        elif isinstance(message, SendInputs):
            self._send(message, known.inputs)

    def _log_rejection(self, payload: bytes, reason: str) -> None:
        if (times := self._repeats.count(reason)) is not None:
            _log.warning("dropped a message of %d bytes: %s%s", len(payload), reason, times)

    def _send(self, asked: SendInputs, inputs: Mapping[str, NDArray[Any]]) -> None:
        key = Key(job=asked.job, sub_bundle=-1, attempt=0)
        for tensor, array in inputs.items():
            for frame in encode_tensor(
                key, tensor, self._manifest.tensors[tensor], memory_of(array), compress=asked.compress
            ):
                self._connection.publish(self._submit_topic, frame)

    def _publish(self, message: messages.Message) -> None:
        self._connection.publish(self._submit_topic, messages.encode_message(message))

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Queue a message, on the connection's thread; the manager keeps a result until `Delivered` reaches it."""
        acknowledge()
        self._events.put(payload)

    def _connected(self) -> None:
        self._connection.subscribe([self._result_topic])

    def _expected_record(self, sender: str, key: Key, tensor: str) -> TensorRecord:
        if key.job not in self._jobs or tensor not in {output.name for output in self._manifest.outputs}:
            raise Rejection("not this job's")
        return self._manifest.tensors[tensor]
