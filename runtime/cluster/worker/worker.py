"""Run a worker: hold the sub-bundles that its manager orders, and compute each when its inputs are there.

A worker knows its manager's hub, its own sub-bundles and the tensors that cross their ends, and nothing else (Kaboubi,
section 3.3.4.2). It holds nothing irreplaceable: whatever it computed but did not deliver, another worker computes again.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.link_probe import LinkProbe
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, ReceivedTensor, Rejected
from hyps.runtime.cluster.protocol.frames import Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.messages import BoardEnergy, Failed, Orders, SubBundleOrder, WorkerState
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import MANAGER, Role, topic
from hyps.runtime.cluster.scheduling.lifecycle import Event, LifeCycle, State
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.cluster.worker.introduction import Introduction
from hyps.runtime.cluster.worker.runner import Backend, SubBundleRunner
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.device.process_memory import memory
from hyps.runtime.energy.board import BoardMeter, machine_number
from hyps.runtime.energy.estimate import recorded_power
from hyps.runtime.errors import InputError, RuntimeFault
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.session import memory_of
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.units import megabytes

#: Incomplete tensors, and inputs that wait for others: the manager sends few at a time.
_ARRIVING_BYTES = 256 << 20
_MAX_WAITING = 16
#: The most bytes of a result that wait for the hub's acknowledgement: a large tensor is not in memory a second time.
_UNSENT_BYTES = 8 << 20
#: A result that no manager takes in this time is asked for again.
_EXPIRY_S = 600
#: With this, a manager's page shows within two seconds that a board was unplugged; the hub notices only after six.
_PULSE_S = 0.5
#: The bytes of the messages that measure the link: enough for a rate, and little for a hub that many workers join at once.
_PROBE_SIZES = (65_536, 262_144)
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _LoadedSubBundle:
    """A loaded sub-bundle; ``busy`` counts the inputs that are being computed."""

    sha256: str
    runner: SubBundleRunner
    life: LifeCycle
    busy: int = 0


class Worker:
    """One worker, which serves until it is stopped; all but receiving happens on the thread that calls `run`.

    ``say`` gets lines for the operator, on any thread. ``energy`` follows the energy of this board.
    """

    def __init__(
        self,
        join: Join,
        name: str,
        backend: Backend,
        cache: Path,
        cache_bytes: int,
        *,
        introduction: Introduction | None = None,
        say: Callable[[str], None] = _log.info,
        energy: BoardMeter | None = None,
    ) -> None:
        self._backend, self._say, self._energy = backend, say, energy
        self._machine = machine_number() if energy else ""
        self._introduction = introduction or Introduction()
        self._link: LinkRates | None = None
        self._cache, self._cache_bytes = FileCache(cache), cache_bytes
        self._name = name
        self._session = secrets.token_hex(16)
        self._connects = 0
        self._orders: Orders | None = None
        self._sub_bundles: dict[int, _LoadedSubBundle] = {}
        self._loading: tuple[int, ...] = ()
        self._problem: str | None = None
        self._last_computed: int | None = None
        self._inputs: OrderedDict[Key, dict[str, TensorValue]] = OrderedDict()
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._ended = threading.Event()
        self._assembler = Assembler(self._expected_record, limit_bytes=_ARRIVING_BYTES)
        self._orders_topic, self._input_topic = (topic(Role.WORKER, name, channel) for channel in ("orders", "input"))
        self._state_topic, self._output_topic = (topic(Role.WORKER, name, channel) for channel in ("state", "output"))
        last_will = messages.encode_message(WorkerState(online=False, session=self._session))
        self._repeats = Tally()
        self._connection = Connection(
            join,
            name,
            received=self._receive,
            connected=self._connected,
            lost=self._lost,
            will=(self._state_topic, last_will),
        )
        self._probe = LinkProbe(self._connection, name)

    def run(self, *, patient: bool = True) -> None:
        """Serve until interrupted; ``patient``: wait for a hub that is not there yet. Raises `HubError`."""
        with closing(self._backend):
            self._backend.begin(self._events.put, self._backend_changed)
            self._connection.open(patient=patient)
            threading.Thread(target=self._send_pulses, name="pulse", daemon=True).start()
            try:
                while True:
                    self._events.get()()
            finally:
                self._ended.set()
                self._publish_state(online=False)
                self._connection.close()

    def _connected(self) -> None:
        """Subscribe (on the connection's thread)."""
        self._connection.subscribe([self._orders_topic, self._input_topic])
        self._connects += 1
        back = "joined" if self._connects == 1 else "is back at"
        self._say(f"{self._name} {back} the hub at {self._connection.address}")
        self._events.put(self._publish_state)
        self._events.put(self._publish_profile)
        if self._connects == 1 and self._introduction.board:
            self._probe.start(_PROBE_SIZES, lambda link: self._events.put(partial(self._link_measured, link)))

    def _link_measured(self, link: LinkRates) -> None:
        self._link = link
        self._publish_state()

    def _lost(self, reason: str) -> None:
        """Tell the operator (on the connection's thread)."""
        self._say(f"the hub at {self._connection.address} is gone ({reason}); {self._name} connects again when it is back")

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Queue a message (on the connection's thread).

        It is acknowledged at once: what is lost with this process the manager sends again.
        """
        if topic == self._probe.topic:
            self._probe.returned(payload, acknowledge)
            return
        acknowledge()
        if topic == self._orders_topic:
            self._events.put(lambda: self._obey(payload))
        elif topic == self._input_topic:
            self._events.put(lambda: self._take_input(payload))

    def _send_pulses(self) -> None:
        """Send a pulse twice a second (on a thread of its own, as computing takes long).

        Without a connection no pulse is sent: it would only arrive late.
        """
        while not self._ended.wait(_PULSE_S):
            if self._connection.connected:
                resident = memory().resident_bytes
                pulse = messages.Pulse(
                    session=self._session,
                    resident_bytes=resident,
                    queue=self._events.qsize(),
                    energy=self._board_energy(),
                    below={**self._backend.energies()},
                )
                self._connection.publish(self._output_topic, messages.encode_message(pulse), expiry_s=1)

    def _board_energy(self) -> BoardEnergy | None:
        state = self._energy.state() if self._energy else None
        if state is None:
            return None
        return BoardEnergy(
            seconds=state.seconds,
            joules=state.joules,
            idle_watts=state.idle_watts,
            estimated=state.estimated,
            source=state.source[:200],
            machine=self._machine,
        )

    def _publish_state(self, *, online: bool = True) -> None:
        capabilities = self._backend.capabilities()
        state = WorkerState(
            online=online and capabilities is not None,
            session=self._session,
            connects=self._connects,
            **(asdict(capabilities) if capabilities else {}),
            epoch=self._orders.epoch if self._orders else 0,
            loading=self._loading,
            loaded=tuple(sorted(self._sub_bundles)),
            problem=self._problem,
            board=self._introduction.board,
            board_class=self._introduction.board_class,
            link=self._link,
        )
        self._connection.publish(self._state_topic, messages.encode_message(state), retain=True)

    def _publish_profile(self) -> None:
        """Send the step profile: when the worker joins, and when a manager that may not have heard of it gives orders."""
        for part in self._introduction.profile_messages():
            self._connection.publish(self._output_topic, messages.encode_message(part), expiry_s=_EXPIRY_S)

    def _backend_changed(self) -> None:
        """Unload faulty sub-bundles and publish the new state.

        If an ordered sub-bundle is missing, the worker presents itself as restarted, so that the manager places again.
        """
        for number, loaded in [*self._sub_bundles.items()]:
            if loaded.runner.fault:
                self._problem = messages.shorten(loaded.runner.fault)
                _log.error("sub-bundle %d is lost: %s", number, loaded.runner.fault)
                self._unload(number)
        ordered = {order.number for order in self._orders.sub_bundles} if self._orders else set()
        if not ordered <= self._sub_bundles.keys():
            self._publish_state(online=False)
        self._publish_state()

    def _unload(self, number: int) -> None:
        loaded = self._sub_bundles.pop(number)
        loaded.life.apply(Event.LOSE)
        loaded.runner.close()
        self._last_computed = None if self._last_computed == number else self._last_computed

    def _obey(self, payload: bytes) -> None:
        """Hold what is ordered: unload what is not ordered any more, keep what is the same, load the rest."""
        if not payload:
            return
        try:
            orders = messages.decode_message(payload, Orders)
        except Rejection as reason:
            self._log_rejection(payload, str(reason))
            return
        ordered = {order.number: order for order in orders.sub_bundles}
        for number in [*self._sub_bundles]:
            if number not in ordered or ordered[number].sha256 != self._sub_bundles[number].sha256:
                self._unload(number)
                self._say(f"{self._name} gave sub-bundle {number} back")
        is_new_manager = self._orders is None or self._orders.token != orders.token
        self._orders, self._problem = orders, None
        if is_new_manager:
            self._publish_profile()
        missing = [order for order in orders.sub_bundles if order.number not in self._sub_bundles]
        self._loading = tuple(order.number for order in missing)
        self._publish_state()
        started, fetched_before = time.perf_counter(), self._cache.fetched_bytes
        for order in missing:
            self._load(orders, order)
        self._loading = ()
        self._publish_state()
        self._cache.prune({order.sha256 for order in orders.sub_bundles}, self._cache_bytes)
        fetched = self._cache.fetched_bytes - fetched_before
        seconds = time.perf_counter() - started
        count = f"{len(ordered)} sub-bundle{'' if len(ordered) == 1 else 's'}"
        _log.info("%s, %d new: %.1f MB fetched, %.2f s", count, len(missing), fetched / 1e6, seconds)

    def _load(self, orders: Orders, order: SubBundleOrder) -> None:
        life = LifeCycle(f"sub-bundle {order.number}")
        life.apply(Event.PLACE)
        life.apply(Event.LOAD)
        try:
            runner = self._backend.open(self._cache.fetch(orders, order))
        except RuntimeFault as fault:
            self._problem = messages.shorten(fault)
            _log.error("cannot load sub-bundle %d: %s", order.number, fault)
            return
        life.apply(Event.LOADED)
        capabilities = self._backend.capabilities()
        computes_here = capabilities is not None and not capabilities.group
        if self._energy and computes_here and (power := runner.manifest.target.power):
            self._energy.estimate_by(recorded_power(power, runner.manifest.target.name))
        steps = runner.manifest.steps
        names = steps[0].name if len(steps) == 1 else f"{steps[0].name} to {steps[-1].name}"
        weight_bytes = sum(step.weights.size_bytes for step in steps if step.weights)
        self._say(f"{self._name} holds sub-bundle {order.number}: {names}, {megabytes(weight_bytes)} of weights")
        input_bytes = sum(runner.manifest.tensors[tensor].nbytes for tensor in runner.manifest.inputs)
        self._assembler.limit_bytes = max(self._assembler.limit_bytes, 2 * input_bytes)
        self._sub_bundles[order.number] = _LoadedSubBundle(sha256=order.sha256, runner=runner, life=life)

    def _expected_record(self, sender: str, key: Key, tensor: str) -> TensorRecord:
        """Return the record that an input must have. Raises `Rejection`."""
        loaded = self._sub_bundles.get(key.sub_bundle)
        if loaded is None:
            raise Rejection("not my sub-bundle")
        manifest = loaded.runner.manifest
        if tensor not in manifest.inputs:
            raise Rejection("unknown tensor")
        return manifest.tensors[tensor]

    def _take_input(self, payload: bytes) -> None:
        result = self._assembler.add(MANAGER, payload)
        if isinstance(result, Rejected):
            self._log_rejection(payload, result.reason)
        elif isinstance(result, Complete):
            self._add_input(result.received)

    def _log_rejection(self, payload: bytes, reason: str) -> None:
        if (times := self._repeats.count(reason)) is not None:
            _log.warning("dropped a message of %d bytes: %s%s", len(payload), reason, times)

    def _add_input(self, received: ReceivedTensor) -> None:
        """Keep an input, and compute its sub-bundle if that was the last one missing."""
        inputs = self._inputs.setdefault(received.key, {})
        inputs[received.tensor] = to_value(received.data, received.record)
        loaded = self._sub_bundles[received.key.sub_bundle]
        if inputs.keys() >= set(loaded.runner.manifest.inputs):
            self._compute(received.key, loaded, self._inputs.pop(received.key))
        while len(self._inputs) > _MAX_WAITING:
            self._inputs.popitem(last=False)

    def _compute(self, key: Key, loaded: _LoadedSubBundle, inputs: dict[str, Any]) -> None:
        if self._last_computed not in (None, key.sub_bundle) and self._last_computed in self._sub_bundles:
            self._sub_bundles[self._last_computed].runner.make_room()
        self._last_computed = key.sub_bundle
        if not loaded.busy:
            loaded.life.apply(Event.INFER)
        loaded.busy += 1
        loaded.runner.start(inputs, partial(self._computed, key, loaded, time.perf_counter()))

    def _computed(self, key: Key, loaded: _LoadedSubBundle, began: float, result: Outputs | RuntimeFault) -> None:
        """Publish the outputs of a sub-bundle, or why there are none."""
        if isinstance(result, RuntimeFault):
            failed = Failed(key=key, input=isinstance(result, InputError), reason=messages.shorten(result))
            self._connection.publish(self._output_topic, messages.encode_message(failed), expiry_s=_EXPIRY_S)
        else:
            steps_s = tuple(loaded.runner.steps_s[: messages.MAX_TIMED_STEPS])
            timed = messages.Timed(key=key, compute_s=time.perf_counter() - began, steps_s=steps_s)
            self._connection.publish(self._output_topic, messages.encode_message(timed), expiry_s=_EXPIRY_S)
            compress = self._orders is not None and self._orders.compress
            for name, array in result.items():
                record = loaded.runner.manifest.tensors[name]
                for frame in encode_tensor(key, name, record, memory_of(array), compress=compress):
                    self._connection.wait_until_sent(_UNSENT_BYTES)
                    self._connection.publish(self._output_topic, frame, expiry_s=_EXPIRY_S)
        loaded.busy -= 1
        if not loaded.busy and loaded.life.state is State.INFERRING:
            loaded.life.apply(Event.FAIL if isinstance(result, RuntimeFault) else Event.COMPUTED)
