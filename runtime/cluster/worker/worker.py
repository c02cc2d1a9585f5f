"""Run a worker: hold the sub-bundles that its manager orders, and compute each when its inputs are there.

A worker knows its manager's hub, its own sub-bundles and the tensors that cross their ends, and nothing else (Kaboubi,
section 3.3.4.2). It holds nothing irreplaceable: whatever it computed but did not deliver, another worker computes again.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.protocol.frames import Rejection
from hyps.runtime.cluster.protocol.messages import Orders, WorkerState, decode_message, encode_message
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.cluster.worker.computations import RESULT_EXPIRY_S, Computations
from hyps.runtime.cluster.worker.hub_probe import HubProbe
from hyps.runtime.cluster.worker.introduction import Introduction
from hyps.runtime.cluster.worker.loaded_sub_bundles import LoadedSubBundles
from hyps.runtime.cluster.worker.message_meter import MessageMeter
from hyps.runtime.cluster.worker.pulses import Pulses
from hyps.runtime.cluster.worker.runner import Backend
from hyps.runtime.device.link_rates import HubMeasurements
from hyps.runtime.energy.board import BoardMeter

#: The bytes of the messages that measure the link: enough for a rate, and little for a hub that many workers join at once.
_PROBE_SIZES = (65_536, 262_144)
_log = logging.getLogger(__name__)


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
        self._name, self._backend, self._say = name, backend, say
        self._introduction = introduction or Introduction()
        self._link, self._message_s = self._introduction.link, self._introduction.message_s
        self._cache, self._cache_bytes = FileCache(cache), cache_bytes
        self._session = secrets.token_hex(16)
        self._connects = 0
        self._orders: Orders | None = None
        self._sub_bundles = LoadedSubBundles(name, backend, self._cache, say)
        self._loading: tuple[int, ...] = ()
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._orders_topic, self._input_topic = (topic(Role.WORKER, name, channel) for channel in ("orders", "input"))
        self._state_topic, self._output_topic = (topic(Role.WORKER, name, channel) for channel in ("state", "output"))
        last_will = encode_message(WorkerState(online=False, session=self._session))
        self._repeats = Tally()
        self._connection = Connection(
            join,
            name,
            received=self._receive,
            connected=self._connected,
            lost=self._lost,
            will=(self._state_topic, last_will),
        )
        self._probe = HubProbe(self._connection, name)
        self._meter = MessageMeter()
        self._computations = Computations(self._sub_bundles, self._connection, self._output_topic, self._meter)
        self._pulses = Pulses(
            self._connection, self._output_topic, self._session, backend, energy, self._events.qsize, self._meter
        )

    def run(self, *, patient: bool = True) -> None:
        """Serve until interrupted; ``patient``: wait for a hub that is not there yet. Raises `HubError`."""
        with closing(self._backend):
            self._backend.begin(self._events.put, self._backend_changed)
            self._connection.open(patient=patient)
            self._pulses.start()
            try:
                while True:
                    self._events.get()()
            finally:
                self._pulses.end()
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
        if self._connects == 1 and self._introduction.board and not (self._link and self._message_s):
            self._probe.start(_PROBE_SIZES, lambda measured: self._events.put(partial(self._hub_measured, measured)))

    def _hub_measured(self, measured: HubMeasurements) -> None:
        self._link, self._message_s = measured.link, measured.message_s or self._message_s
        self._publish_state()

    def _lost(self, reason: str) -> None:
        """Tell the operator (on the connection's thread)."""
        self._say(f"the hub at {self._connection.address} is gone ({reason}); {self._name} connects again when it is back")

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Queue a message (on the connection's thread).

        It is acknowledged at once: what is lost with this process the manager sends again. A withdrawal is taken at once,
        too: it is for inputs that are queued before it.
        """
        if topic == self._probe.topic:
            self._probe.returned(payload, acknowledge)
            return
        acknowledge()
        self._meter.received()
        if topic == self._orders_topic:
            self._events.put(partial(self._take, self._obey, payload))
        elif topic == self._input_topic and not self._computations.withdrawals.take(payload):
            self._events.put(partial(self._take, self._computations.take_input, payload))

    def _take(self, take: Callable[[bytes], None], payload: bytes) -> None:
        """Take a message, or log why it is rejected."""
        try:
            take(payload)
        except Rejection as reason:
            if (times := self._repeats.count(str(reason))) is not None:
                _log.warning("dropped a message of %d bytes: %s%s", len(payload), reason, times)

    def _publish_state(self, *, online: bool = True) -> None:
        capabilities = self._backend.capabilities()
        state = WorkerState(
            online=online and capabilities is not None,
            session=self._session,
            connects=self._connects,
            **(asdict(capabilities) if capabilities else {}),
            epoch=self._orders.epoch if self._orders else 0,
            loading=self._loading,
            loaded=self._sub_bundles.numbers,
            problem=self._sub_bundles.problem,
            board=self._introduction.board,
            board_class=self._introduction.board_class,
            link=self._link,
            message_s=self._message_s,
        )
        self._connection.publish(self._state_topic, encode_message(state), retain=True)

    def _publish_profile(self) -> None:
        """Send the step profile: when the worker joins, and when a manager that may not have heard of it gives orders."""
        for part in self._introduction.profile_messages():
            self._connection.publish(self._output_topic, encode_message(part), expiry_s=RESULT_EXPIRY_S)

    def _backend_changed(self) -> None:
        """Unload faulty sub-bundles and publish the new state.

        If an ordered sub-bundle is missing, the worker presents itself as restarted, so that the manager places again.
        """
        self._sub_bundles.unload_faulty()
        ordered = self._orders.sub_bundles if self._orders else ()
        if any(order.number not in self._sub_bundles for order in ordered):
            self._publish_state(online=False)
        self._publish_state()

    def _obey(self, payload: bytes) -> None:
        """Hold what is ordered: unload what is not ordered any more, keep what is the same, load the rest.

        Raises `Rejection`.
        """
        if not payload:
            return
        orders = decode_message(payload, Orders)
        ordered = {order.number: order for order in orders.sub_bundles}
        self._sub_bundles.give_back(ordered)
        is_new_manager = self._orders is None or self._orders.token != orders.token
        self._orders, self._sub_bundles.problem, self._computations.compress = orders, None, orders.compress
        if is_new_manager:
            self._publish_profile()
        missing = [order for order in orders.sub_bundles if order.number not in self._sub_bundles]
        self._loading = tuple(order.number for order in missing)
        self._publish_state()
        started, fetched_before = time.perf_counter(), self._cache.fetched_bytes
        for order in missing:
            if loaded := self._sub_bundles.load(orders, order):
                self._computations.make_room_for(loaded.runner.manifest)
                self._pulses.estimate_energy_by(loaded.runner.manifest)
        self._loading = ()
        self._publish_state()
        self._cache.prune({order.sha256 for order in orders.sub_bundles}, self._cache_bytes)
        fetched = self._cache.fetched_bytes - fetched_before
        seconds = time.perf_counter() - started
        count = f"{len(ordered)} sub-bundle{'' if len(ordered) == 1 else 's'}"
        _log.info("%s, %d new: %.1f MB fetched, %.2f s", count, len(missing), fetched / 1e6, seconds)
