"""Measure what a message costs a board's processor before it works for a cluster, by tensors that its hub sends back.

A worker does the same with a tensor's bytes when it computes: it packs and sends them, or receives, checks and unpacks them.
So a tensor that comes back costs both, and nothing is computed between. `hyps.runtime.cluster.worker.message_meter` measures
the same under load.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete
from hyps.runtime.cluster.protocol.frames import Key, digest_of, encode_tensor
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.errors import HubError

#: The tensor: four messages. Its count, and that of those before, which load code and are not counted.
_RECORD = TensorRecord(dtype="uint8", shape=(65_536,))
_TENSORS, _WARM = 24, 4
#: The most seconds that all of them may take on the link, and that one may take to come back.
_MOST_S, _LIMIT_S = 10.0, 30.0
#: The seconds of the processor that show how much longer it takes on the clock; a quota's period is a tenth of a second.
_STRETCH_S = 0.06


class MessageProbe:
    """The measurement by the ``connection`` of a worker, which passes what comes back on ``topic`` to `returned`."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._back: queue.Queue[bytes] = queue.Queue()
        self._connection_s = 0.0

    def returned(self, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Take a message that is back (on the connection's thread)."""
        acknowledge()
        self._back.put(payload)
        self._connection_s = time.thread_time()

    def measure(self, link: LinkRates) -> float | None:
        """Return the seconds that the processor works for a message, under a quota longer; None on a slow ``link``.

        The connection must be subscribed to the topic. Raises `HubError` if a tensor does not come back.
        """
        seconds = _RECORD.nbytes * (1 / link.up_bytes_per_s + 1 / link.down_bytes_per_s)
        if (_WARM + _TENSORS) * seconds > _MOST_S:
            return None
        data = memoryview(os.urandom(_RECORD.nbytes))
        assembler: Assembler[None] = Assembler(lambda *_: _RECORD, limit_bytes=2 * _RECORD.nbytes)
        job = os.urandom(16).hex()
        began = 0.0
        for number in range(_WARM + _TENSORS):
            if number == _WARM:
                began = time.thread_time() + self._connection_s
            self._pass(Key(job=job, sub_bundle=0, attempt=number), data, assembler)
        handling_s = time.thread_time() + self._connection_s - began
        return _slowdown(data) * handling_s / (2 * _TENSORS * tensor_messages(_RECORD.nbytes))

    def _pass(self, key: Key, data: memoryview, assembler: Assembler[None]) -> None:
        """Send a tensor and unpack it when it is back."""
        for frame in encode_tensor(key, "probe", _RECORD, data):
            self._connection.publish(self._topic, frame, expiry_s=60)
        while True:
            try:
                result = assembler.add(None, self._back.get(timeout=_LIMIT_S))
            except queue.Empty:
                raise HubError(
                    f"the hub at {self._connection.address} does not send a tensor back",
                    "measure again when less is sent through it",
                ) from None
            if isinstance(result, Complete):
                to_value(result.received.data, _RECORD)
                return


def _slowdown(data: memoryview) -> float:
    """Return how much longer than the processor works a computation takes, as under a quota."""
    processor_s, at_s = time.thread_time(), time.perf_counter()
    while (worked_s := time.thread_time() - processor_s) < _STRETCH_S:
        digest_of(data)
    return max(1.0, (time.perf_counter() - at_s) / worked_s)
