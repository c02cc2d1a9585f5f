"""Compute a sub-bundle as soon as all its inputs have arrived, and publish its outputs."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, ReceivedTensor, Rejected
from hyps.runtime.cluster.protocol.frames import Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.messages import Failed, Timed
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import MANAGER
from hyps.runtime.cluster.protocol.withdrawal import Withdrawn
from hyps.runtime.cluster.scheduling.lifecycle import Event, State
from hyps.runtime.cluster.worker.loaded_sub_bundles import LoadedSubBundle, LoadedSubBundles
from hyps.runtime.cluster.worker.message_meter import MessageMeter
from hyps.runtime.cluster.worker.withdrawals import Withdrawals
from hyps.runtime.errors import InputError, RuntimeFault
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.session import memory_of
from hyps.runtime.execution.tensor import TensorValue

#: Incomplete tensors, and inputs that wait for others: the manager sends few at a time.
_ARRIVING_BYTES = 256 << 20
_MAX_WAITING = 16
#: The most bytes of a result that wait for the hub's acknowledgement: a large tensor is not in memory a second time.
_UNSENT_BYTES = 8 << 20
#: The hub drops a message that no manager takes in this time; the manager asks for the result again.
RESULT_EXPIRY_S = 600


class Computations:
    """The inputs that a worker receives, and what it computes of them, on the worker's thread.

    ``compress``: whether outputs are compressed on their way. ``withdrawals`` are inputs whose outputs nobody needs.
    """

    def __init__(
        self, sub_bundles: LoadedSubBundles, connection: Connection, output_topic: str, meter: MessageMeter
    ) -> None:
        self._sub_bundles, self._connection, self._output_topic = sub_bundles, connection, output_topic
        self._meter = meter
        self._inputs: OrderedDict[Key, dict[str, TensorValue]] = OrderedDict()
        self._assembler = Assembler(self._expected_record, limit_bytes=_ARRIVING_BYTES)
        self.compress = False
        self.withdrawals = Withdrawals()

    def make_room_for(self, manifest: Manifest) -> None:
        """Allow the inputs of this sub-bundle to arrive at the same time as those of its next computation."""
        input_bytes = sum(manifest.tensors[tensor].nbytes for tensor in manifest.inputs)
        self._assembler.limit_bytes = max(self._assembler.limit_bytes, 2 * input_bytes)
        self._meter.restart()

    def take_input(self, payload: bytes) -> None:
        """Take a chunk of an input, and compute its sub-bundle if that was the last one missing. Raises `Rejection`."""
        result = self._assembler.add(MANAGER, payload)
        if isinstance(result, Rejected):
            raise Rejection(result.reason)
        if isinstance(result, Complete):
            self._add_input(result.received)

    def _expected_record(self, sender: str, key: Key, tensor: str) -> TensorRecord:
        """Return the record that an input must have. Raises `Rejection`."""
        loaded = self._sub_bundles.get(key.sub_bundle)
        if loaded is None:
            raise Rejection("not my sub-bundle")
        manifest = loaded.runner.manifest
        if tensor not in manifest.inputs:
            raise Rejection("unknown tensor")
        return manifest.tensors[tensor]

    def _add_input(self, received: ReceivedTensor) -> None:
        inputs = self._inputs.setdefault(received.key, {})
        inputs[received.tensor] = to_value(received.data, received.record)
        loaded = self._sub_bundles.get(received.key.sub_bundle)
        assert loaded  # else the tensor was rejected
        if inputs.keys() >= set(loaded.runner.manifest.inputs):
            self._compute(received.key, loaded, self._inputs.pop(received.key))
        while len(self._inputs) > _MAX_WAITING:
            self._inputs.popitem(last=False)

    def _compute(self, key: Key, loaded: LoadedSubBundle, inputs: dict[str, TensorValue]) -> None:
        if self.withdrawals.pop(key):
            self._publish(messages.encode_message(Withdrawn(key=key, computed=False)))
            return
        self._sub_bundles.take_turn(key.sub_bundle)
        if not loaded.busy:
            loaded.life.apply(Event.INFER)
        loaded.busy += 1
        self._meter.begin()
        loaded.runner.start(inputs, partial(self._computed, key, loaded, time.perf_counter()))

    def _computed(self, key: Key, loaded: LoadedSubBundle, began: float, result: Outputs | RuntimeFault) -> None:
        """Publish the outputs of a sub-bundle, or why there are none; nothing but that if they were withdrawn meanwhile."""
        if isinstance(result, RuntimeFault):
            failed = Failed(key=key, input=isinstance(result, InputError), reason=messages.shorten(result))
            self._publish(messages.encode_message(failed))
        else:
            self._meter.computed()
            steps_s = tuple(loaded.runner.steps_s[: messages.MAX_TIMED_STEPS])
            timed = Timed(key=key, compute_s=time.perf_counter() - began, steps_s=steps_s)
            self._publish(messages.encode_message(timed))
            if self.withdrawals.pop(key):
                self._publish(messages.encode_message(Withdrawn(key=key, computed=True)))
            else:
                self._publish_outputs(key, loaded.runner.manifest, result)
                if steps_s:  # else a group has computed it
                    tensors = loaded.runner.manifest.tensors
                    self._meter.answered(
                        sum(tensor_messages(tensors[name].nbytes) for name in (*loaded.runner.manifest.inputs, *result))
                    )
        loaded.busy -= 1
        if not loaded.busy and loaded.life.state is State.INFERRING:
            loaded.life.apply(Event.FAIL if isinstance(result, RuntimeFault) else Event.COMPUTED)

    def _publish_outputs(self, key: Key, manifest: Manifest, outputs: Outputs) -> None:
        for name, array in outputs.items():
            for frame in encode_tensor(key, name, manifest.tensors[name], memory_of(array), compress=self.compress):
                self._connection.wait_until_sent(_UNSENT_BYTES)
                self._publish(frame)

    def _publish(self, payload: bytes) -> None:
        self._connection.publish(self._output_topic, payload, expiry_s=RESULT_EXPIRY_S)
