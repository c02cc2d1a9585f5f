"""The `hyps.runtime.engine.Engine` of a cluster: inputs go to a manager, outputs come back.

A job has a number of its own that the client makes. What is not answered is said again, and the manager knows it by that
number: a hub or a manager that was killed meanwhile costs time, and no job is computed twice or answered twice.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hyps.runtime.cluster import messages
from hyps.runtime.cluster.connection import Connection
from hyps.runtime.cluster.frames import MAGIC, Arrival, Assembler, Dropped, Key, cut
from hyps.runtime.cluster.join import Join, read_join
from hyps.runtime.cluster.messages import Accepted, Delivered, Refused, Submit
from hyps.runtime.cluster.tensors import to_value
from hyps.runtime.cluster.topics import Role, topic
from hyps.runtime.errors import HubError, InputError
from hyps.runtime.executor import Outputs, StepProfile, check_inputs
from hyps.runtime.integrity import read_manifest
from hyps.runtime.manifest import MANIFEST_NAME, Manifest, TensorRecord
from hyps.runtime.process import memory
from hyps.runtime.sessions import memory_of, to_numpy

#: An accepted job's result may take long; a job that nobody accepts is said again, so many times.
_AGAIN_S, _MOST_SILENCE = 2.0, 15
log = logging.getLogger(__name__)


class ClusterEngine:
    """Computes a bundle's outputs at the cluster behind a hub; the bundle's manifest alone is needed here."""

    def __init__(self, bundle: Path, hub: str | None, join_file: Path | None) -> None:
        self._manifest = read_manifest(bundle)
        self._bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        join = read_join(join_file) if join_file else Join(hub=hub or "")
        if hub and join_file:
            join = Join(hub=hub, name=join.name, password=join.password, authority=join.authority)
            if not join.address.tls:
                raise HubError("the join file's secret would travel unencrypted: give --engine as mqtts://")
        name = join.name or f"c{secrets.token_hex(8)}"
        self._submit_topic, self._result_topic = topic(Role.CLIENT, name, "submit"), topic(Role.CLIENT, name, "result")
        self._job = ""
        self._events: queue.Queue[bytes] = queue.Queue(maxsize=1024)
        limit_bytes = sum(self._manifest.tensors[output.name].nbytes for output in self._manifest.outputs)
        self._assembler = Assembler(self._wanted, limit_bytes=2 * limit_bytes)
        self._connection = Connection(
            join,
            name,
            received=self._receive,
            connected=lambda: self._connection.subscribe([self._result_topic]),
        )
        self._connection.open()

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
    ) -> Outputs:
        """The model's outputs by name. Raises `InputError` for wrong inputs, `HubError` where nobody computes them."""
        check_inputs(self._manifest, inputs)
        self._job = secrets.token_hex(16)
        self._send(inputs)
        accepted, silence = False, 0
        outputs: Outputs = {}
        while len(outputs) < len(self._manifest.outputs):
            try:
                event = self._take(self._events.get(timeout=_AGAIN_S))
            except queue.Empty:
                silence += 1
                if silence > _MOST_SILENCE and not accepted:
                    raise HubError("no manager answers at this hub; start 'hyps-manager DIR --hub URL'") from None
                self._send(inputs)  # one that was killed, or its hub, may have forgotten it
                continue
            silence = 0
            if isinstance(event, Refused):
                self._connection.publish(self._submit_topic, messages.encode(Delivered(job=self._job)))
                raise InputError(event.reason)
            if isinstance(event, Arrival):
                outputs[event.tensor] = to_numpy(to_value(event.data, event.record))
            accepted = accepted or event is not None
        self._connection.publish(self._submit_topic, messages.encode(Delivered(job=self._job)))
        return {output.name: outputs[output.name] for output in self._manifest.outputs}

    def room_bytes(self) -> int:
        """What the bundle's budget leaves for reading an input."""
        return self._manifest.budget_bytes - memory().resident_bytes

    def make_room(self) -> None:
        """There is nothing to give back."""

    def close(self) -> None:
        """Take leave of the hub, when what was said has been sent."""
        self._connection.close()

    def _send(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        submit = Submit(job=self._job, bundle=self._bundle_sha256)
        self._connection.publish(self._submit_topic, messages.encode(submit))
        key = Key(job=self._job, share=-1, attempt=0)
        for name, array in inputs.items():
            for frame in cut(key, name, self._manifest.tensors[name], memory_of(array)):
                self._connection.publish(self._submit_topic, frame)

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """(On the connection's thread.) The manager keeps the result until it hears that we have it."""
        acknowledge()
        self._events.put(payload)

    def _take(self, payload: bytes) -> Arrival | Accepted | Refused | None:
        if payload.startswith(MAGIC):
            return self._assembler.add(payload)
        try:
            message = messages.decode_reply(payload)
        except Dropped as reason:
            log.warning("dropped a message of %d bytes: %s", len(payload), reason)
            return None
        return message if message.job == self._job else None

    def _wanted(self, key: Key, tensor: str) -> TensorRecord:
        if key.job != self._job or tensor not in {output.name for output in self._manifest.outputs}:
            raise Dropped("not this job's")
        return self._manifest.tensors[tensor]
