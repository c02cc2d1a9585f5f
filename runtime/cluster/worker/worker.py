"""A worker: holds the shares that its manager orders, and has each computed when its inputs are there.

It knows its manager's hub, its own shares and the tensors that cross their ends, and nothing else (Kaboubi, section
3.3.4.2). It keeps nothing that must not be lost: what it computed and did not deliver, another computes again.
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
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler
from hyps.runtime.cluster.protocol.frames import Dropped, Key, cut
from hyps.runtime.cluster.protocol.messages import Failed, Orders, WorkerState
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.scheduling.lifecycle import Event, LifeCycle, State
from hyps.runtime.cluster.transfer.file_cache import Cache
from hyps.runtime.cluster.worker.runner import Host, Runner
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import InputError, RuntimeFault
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.session import TensorValue, memory_of

#: Tensors that are not whole yet, and inputs that wait for others: the manager sends few at a time.
_ARRIVING_BYTES = 256 << 20
_WAITING = 16
#: An output that nobody took in this time is asked for again.
_EXPIRY_S = 600
#: A manager's page shows within two seconds that a board was unplugged; the hub itself notices after six.
_PULSE_S = 0.5
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Share:
    """A share that is loaded; ``busy``: inputs that are being computed."""

    sha256: str
    runner: Runner
    life: LifeCycle
    busy: int = 0


class Worker:
    """Runs until stopped; everything but receiving happens on the thread that calls `run`."""

    def __init__(self, join: Join, name: str, host: Host, cache: Path, cache_bytes: int) -> None:
        self._host = host
        self._cache, self._cache_bytes = Cache(cache), cache_bytes
        self._session = secrets.token_hex(16)
        self._connects = 0
        self._orders: Orders | None = None
        self._shares: dict[int, _Share] = {}
        self._loading: tuple[int, ...] = ()
        self._problem: str | None = None
        self._last: int | None = None
        self._inputs: OrderedDict[Key, dict[str, TensorValue]] = OrderedDict()
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._ended = threading.Event()
        self._assembler = Assembler(self._wanted, limit_bytes=_ARRIVING_BYTES)
        self._orders_topic, self._input_topic = (topic(Role.WORKER, name, last) for last in ("orders", "input"))
        self._state_topic, self._output_topic = (topic(Role.WORKER, name, last) for last in ("state", "output"))
        gone = messages.encode_message(WorkerState(online=False, session=self._session))
        self._connection = Connection(
            join, name, received=self._receive, connected=self._connected, will=(self._state_topic, gone)
        )

    def run(self, *, patient: bool = True) -> None:
        """Serve until interrupted. Raises `HubError`."""
        with closing(self._host):
            self._host.begin(self._events.put, self._changed)
            self._connection.open(patient=patient)
            threading.Thread(target=self._beat, name="pulse", daemon=True).start()
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
        self._events.put(self._publish_state)

    def _receive(self, topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """(On the connection's thread.) What is lost with this process the manager sends again: no need to wait."""
        acknowledge()
        if topic == self._orders_topic:
            self._events.put(lambda: self._obey(payload))
        elif topic == self._input_topic:
            self._events.put(lambda: self._take(payload))

    def _beat(self) -> None:
        """(On a thread of its own: computing takes long.) What a hub that is gone would get later is not said."""
        while not self._ended.wait(_PULSE_S):
            if self._connection.connected:
                resident = memory().resident_bytes
                pulse = messages.Pulse(session=self._session, resident_bytes=resident, queue=self._events.qsize())
                self._connection.publish(self._output_topic, messages.encode_message(pulse), expiry_s=1)

    def _publish_state(self, *, online: bool = True) -> None:
        abilities = self._host.abilities()
        state = WorkerState(
            online=online and abilities is not None,
            session=self._session,
            connects=self._connects,
            **(asdict(abilities) if abilities else {}),
            epoch=self._orders.epoch if self._orders else 0,
            loading=self._loading,
            loaded=tuple(sorted(self._shares)),
            problem=self._problem,
        )
        self._connection.publish(self._state_topic, messages.encode_message(state), retain=True)

    def _changed(self) -> None:
        """The host is another than before. With a share missing, this is as if it was started again: it is planned anew."""
        for number, share in [*self._shares.items()]:
            if share.runner.fault:
                self._problem = messages.shorten(share.runner.fault)
                log.error("share %d is lost: %s", number, share.runner.fault)
                self._let_go(number)
        ordered = {order.number for order in self._orders.shares} if self._orders else set()
        if not ordered <= self._shares.keys():
            self._publish_state(online=False)
        self._publish_state()

    def _let_go(self, number: int) -> None:
        share = self._shares.pop(number)
        share.life.apply(Event.LOSE)
        share.runner.close()
        self._last = None if self._last == number else self._last

    def _obey(self, payload: bytes) -> None:
        """Hold what is ordered: keep what is the same, let go of the rest first, load the new."""
        if not payload:
            return
        try:
            orders = messages.decode(payload, Orders)
        except Dropped as reason:
            self._assembler.dropped[str(reason)] += 1
            log.warning("dropped orders of %d bytes: %s", len(payload), reason)
            return
        wanted = {order.number: order for order in orders.shares}
        for number in [*self._shares]:
            if number not in wanted or wanted[number].sha256 != self._shares[number].sha256:
                self._let_go(number)
        self._orders, self._problem = orders, None
        missing = [order for order in orders.shares if order.number not in self._shares]
        self._loading = tuple(order.number for order in missing)
        self._publish_state()
        started, before = time.perf_counter(), self._cache.fetched_bytes
        for order in missing:
            life = LifeCycle(f"share {order.number}")
            life.apply(Event.PLACE)
            life.apply(Event.LOAD)
            try:
                runner = self._host.open(self._cache.share(orders, order))
            except RuntimeFault as fault:
                self._problem = messages.shorten(fault)
                log.error("cannot load share %d: %s", order.number, fault)
                continue
            life.apply(Event.LOADED)
            self._shares[order.number] = _Share(sha256=order.sha256, runner=runner, life=life)
        self._loading = ()
        self._publish_state()
        self._cache.prune({order.sha256 for order in orders.shares}, self._cache_bytes)
        fetched = self._cache.fetched_bytes - before
        seconds = time.perf_counter() - started
        log.info("%d shares, %d new: %.1f MB fetched, %.2f s", len(wanted), len(missing), fetched / 1e6, seconds)

    def _wanted(self, key: Key, tensor: str) -> TensorRecord:
        share = self._shares.get(key.share)
        if share is None:
            raise Dropped("not my share")
        manifest = share.runner.manifest
        if tensor not in manifest.inputs:
            raise Dropped("unknown tensor")
        return manifest.tensors[tensor]

    def _take(self, payload: bytes) -> None:
        arrival = self._assembler.add(payload)
        if arrival is None:
            return
        held = self._inputs.setdefault(arrival.key, {})
        held[arrival.tensor] = to_value(arrival.data, arrival.record)
        share = self._shares[arrival.key.share]
        if held.keys() >= set(share.runner.manifest.inputs):
            self._compute(arrival.key, share, self._inputs.pop(arrival.key))
        while len(self._inputs) > _WAITING:
            self._inputs.popitem(last=False)

    def _compute(self, key: Key, share: _Share, inputs: dict[str, Any]) -> None:
        if self._last not in (None, key.share) and self._last in self._shares:
            self._shares[self._last].runner.make_room()
        self._last = key.share
        if not share.busy:
            share.life.apply(Event.INFER)
        share.busy += 1
        share.runner.start(inputs, partial(self._computed, key, share, time.perf_counter()))

    def _computed(self, key: Key, share: _Share, began: float, result: Outputs | RuntimeFault) -> None:
        if isinstance(result, RuntimeFault):
            failed = Failed(key=key, input=isinstance(result, InputError), reason=messages.shorten(result))
            self._connection.publish(self._output_topic, messages.encode_message(failed), expiry_s=_EXPIRY_S)
        else:
            timed = messages.Timed(
                key=key, compute_s=time.perf_counter() - began, steps_s=tuple(share.runner.steps_s[: messages.MOST_STEPS])
            )
            self._connection.publish(self._output_topic, messages.encode_message(timed), expiry_s=_EXPIRY_S)
            for name, array in result.items():
                record = share.runner.manifest.tensors[name]
                for frame in cut(key, name, record, memory_of(array), pack=self._orders is not None and self._orders.pack):
                    self._connection.publish(self._output_topic, frame, expiry_s=_EXPIRY_S)
        share.busy -= 1
        if not share.busy and share.life.state is State.INFERRING:
            share.life.apply(Event.FAIL if isinstance(result, RuntimeFault) else Event.COMPUTED)
