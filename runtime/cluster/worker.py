"""A worker: holds the shares that its manager orders, and computes each when its inputs are there.

It knows its manager's hub, its own shares and the tensors that cross their ends, and nothing else (Kaboubi, section
3.3.4.2). It keeps nothing that must not be lost: what it computed and did not deliver, another computes again.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyps.runtime.cluster import messages
from hyps.runtime.cluster.assembler import Assembler
from hyps.runtime.cluster.connection import Connection
from hyps.runtime.cluster.fetching import Cache
from hyps.runtime.cluster.frames import Dropped, Key, cut
from hyps.runtime.cluster.join import Join
from hyps.runtime.cluster.lifecycle import Event, LifeCycle
from hyps.runtime.cluster.messages import Failed, Orders, ShareOrder, WorkerState
from hyps.runtime.cluster.tensors import to_value
from hyps.runtime.cluster.topics import Role, topic
from hyps.runtime.errors import InputError, RuntimeFault
from hyps.runtime.executor import Executor, load
from hyps.runtime.integrity import read_manifest
from hyps.runtime.manifest import TensorRecord
from hyps.runtime.sessions import Value, memory_of

#: Tensors that are not whole yet, and inputs that wait for others: the manager sends few at a time.
_ARRIVING_BYTES = 256 << 20
_WAITING = 16
#: An output that nobody took in this time is asked for again.
_EXPIRY_S = 600
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Share:
    """A share that is loaded."""

    sha256: str
    executor: Executor
    life: LifeCycle


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a worker advertises."""

    memory_bytes: int
    threads: int
    macs_per_s: int
    storage_bytes_per_s: int


class Worker:
    """Runs until stopped; everything but receiving happens on the thread that calls `run`."""

    def __init__(self, join: Join, name: str, abilities: Abilities, cache: Path, cache_bytes: int) -> None:
        self._name = name
        self._abilities = abilities
        self._cache, self._cache_bytes = Cache(cache), cache_bytes
        self._session = secrets.token_hex(16)
        self._connects = 0
        self._orders: Orders | None = None
        self._shares: dict[int, _Share] = {}
        self._loading: tuple[int, ...] = ()
        self._problem: str | None = None
        self._last: int | None = None
        self._inputs: OrderedDict[Key, dict[str, Value]] = OrderedDict()
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._assembler = Assembler(self._wanted, limit_bytes=_ARRIVING_BYTES)
        self._orders_topic, self._input_topic = (topic(Role.WORKER, name, last) for last in ("orders", "input"))
        self._state_topic, self._output_topic = (topic(Role.WORKER, name, last) for last in ("state", "output"))
        gone = messages.encode(WorkerState(online=False, session=self._session))
        self._connection = Connection(
            join, name, received=self._receive, connected=self._connected, will=(self._state_topic, gone)
        )

    def run(self, *, patient: bool = True) -> None:
        """Serve until interrupted. Raises `HubError`."""
        self._connection.open(patient=patient)
        try:
            while True:
                self._events.get()()
        finally:
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

    def _publish_state(self, *, online: bool = True) -> None:
        state = WorkerState(
            online=online,
            session=self._session,
            connects=self._connects,
            memory_bytes=self._abilities.memory_bytes,
            threads=self._abilities.threads,
            macs_per_s=self._abilities.macs_per_s,
            storage_bytes_per_s=self._abilities.storage_bytes_per_s,
            epoch=self._orders.epoch if self._orders else 0,
            loading=self._loading,
            loaded=tuple(sorted(self._shares)),
            problem=self._problem,
        )
        self._connection.publish(self._state_topic, messages.encode(state), retain=True)

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
                self._shares.pop(number).life.apply(Event.LOSE)
                self._last = None if self._last == number else self._last
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
                executor = self._open(orders, order)
            except RuntimeFault as fault:
                self._problem = messages.shorten(fault)
                log.error("cannot load share %d: %s", order.number, fault)
                continue
            life.apply(Event.LOADED)
            self._shares[order.number] = _Share(sha256=order.sha256, executor=executor, life=life)
        self._loading = ()
        self._publish_state()
        self._cache.prune({order.sha256 for order in orders.shares}, self._cache_bytes)
        fetched = self._cache.fetched_bytes - before
        seconds = time.perf_counter() - started
        log.info("%d shares, %d new: %.1f MB fetched, %.2f s", len(wanted), len(missing), fetched / 1e6, seconds)

    def _open(self, orders: Orders, order: ShareOrder) -> Executor:
        folder = self._cache.share(orders, order)
        most = read_manifest(folder).target.threads
        return load(folder, threads=min(self._abilities.threads, most))

    def _wanted(self, key: Key, tensor: str) -> TensorRecord:
        share = self._shares.get(key.share)
        if share is None:
            raise Dropped("not my share")
        manifest = share.executor.manifest
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
        if held.keys() >= set(share.executor.manifest.inputs):
            self._compute(arrival.key, share, self._inputs.pop(arrival.key))
        while len(self._inputs) > _WAITING:
            self._inputs.popitem(last=False)

    def _compute(self, key: Key, share: _Share, inputs: dict[str, Any]) -> None:
        if self._last not in (None, key.share) and self._last in self._shares:
            self._shares[self._last].executor.make_room()  # pinned weights stay
        self._last = key.share
        share.life.apply(Event.INFER)
        try:
            outputs = share.executor.run(inputs)
        except RuntimeFault as fault:
            share.life.apply(Event.FAIL)
            failed = Failed(key=key, input=isinstance(fault, InputError), reason=messages.shorten(fault))
            self._connection.publish(self._output_topic, messages.encode(failed), expiry_s=_EXPIRY_S)
            return
        for name, array in outputs.items():
            record = share.executor.manifest.tensors[name]
            for frame in cut(key, name, record, memory_of(array), pack=self._orders is not None and self._orders.pack):
                self._connection.publish(self._output_topic, frame, expiry_s=_EXPIRY_S)
        share.life.apply(Event.COMPUTED)
