"""Keep the manager's registry of workers: who is connected, what each holds, and which orders it has."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.obedience import Obedience
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, assign
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.messages import Orders, Pulse, SubBundleOrder, WorkerState
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address
from hyps.runtime.terminal.console import plain

#: A worker that cannot load a sub-bundle is asked to try again this many times, and then set aside.
_LOAD_RETRIES = 3
#: A worker is set aside after this many leases in a row without an answer.
MAX_UNANSWERED = 3
_NO_PULSE = Pulse(session="0" * 32, resident_bytes=0, queue=0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChange:
    """The changes that a worker's state made in the registry.

    ``reconnected``: what was sent to it may not have arrived. ``capacity_changed``: it advertises another capacity.
    ``loading`` and ``loaded`` are sub-bundles of its newest orders.
    """

    joined: bool = False
    lost: bool = False
    reconnected: bool = False
    capacity_changed: bool = False
    loading: tuple[int, ...] = ()
    loaded: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoadTrouble:
    """A worker's failed attempts to load, and when it is asked to try again."""

    tries: int
    retry_at: float


class WorkerRegistry:
    """The manager's registry of connected workers. Not thread-safe: use it on the manager's thread."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        listen: str | None,
        options: ClusterOptions,
        speeds: MeasuredSpeeds,
        monitor: Monitor,
    ) -> None:
        self._bundle, self._manifest, self._listen, self._compress = bundle, manifest, listen, options.compress
        self._timeouts = options.timeouts
        self.online: dict[str, WorkerState] = {}
        self._orders: dict[str, Orders] = {}
        self._set_aside: dict[str, str] = {}
        self.drained: set[str] = set()
        self._pulses: dict[str, tuple[float, Pulse]] = {}
        self._silent_until: dict[str, float] = {}
        self._troubles: dict[str, _LoadTrouble] = {}
        self._obedience = Obedience(options.timeouts, options.lease_s)
        self._unanswered: Counter[str] = Counter()
        self._speeds, self._monitor = speeds, monitor
        self._problems = Tally()
        self._epoch = secrets.randbelow(1 << 48)  # no worker holds orders of this number from an earlier manager
        self._connection: Link | None = None
        self._server: FileServer | None = None

    def open(self, connection: Link) -> None:
        """Start to serve files at the named address, or else at the one by which the hub reaches this machine."""
        self._connection = connection
        address = connection.address
        self._server = FileServer(self._listen or local_address(address.host, address.port), tls=address.tls)

    def close(self) -> None:
        """Stop serving files."""
        if self._server:
            self._server.close()

    def update(self, name: str, state: WorkerState) -> RegistryChange:
        """Take a worker's new state; return what that changes."""
        before = self.online.get(name)
        if not state.online and (before is None or before.session != state.session):  # the last word of an earlier process
            return RegistryChange()
        self._silent_until.pop(name, None)
        self._pulses[name] = time.monotonic(), self._pulses.get(name, (0.0, _NO_PULSE))[1]
        if not state.online:
            self.drop(name)
            return RegistryChange(lost=True)
        self.online[name] = state
        is_news = state.problem and (before is None or before.problem != state.problem)
        if state.problem and is_news and (times := self._problems.count(name)) is not None:
            _log.warning("%s: %s%s", name, plain(state.problem), times)
        restarted = before is not None and before.session != state.session
        if restarted:
            self._forget_conduct(name)
        current = name in self._orders and state.epoch == self._orders[name].epoch
        if current:
            ordered = {order.number for order in self._orders[name].sub_bundles}
            done = not state.loading and ordered <= {*state.loaded}
            self._obedience.answered(name, state.epoch, time.monotonic(), done=done)
        if restarted or not (state.problem or state.loading):
            self._troubles.pop(name, None)
        elif current and not state.loading:
            tries = self._troubles[name].tries if name in self._troubles else 0
            self._delay_retry(name, tries + 1)
        return RegistryChange(
            joined=before is None or restarted,
            lost=restarted,
            reconnected=before is not None and before.connects != state.connects,
            capacity_changed=before is not None and _capacity(name, before) != _capacity(name, state),
            loading=state.loading if current else (),
            loaded=state.loaded if current and not state.loading else (),
        )

    def seen(self, name: str) -> None:
        """Note that a worker said something: a long tensor delays its pulse."""
        if name in self._pulses:
            self._pulses[name] = time.monotonic(), self._pulses[name][1]

    def pulse(self, name: str, pulse: Pulse) -> None:
        """Take a worker's pulse, unless it is of an earlier process or of a worker that is not online."""
        if name in self.online and self.online[name].session == pulse.session:
            self._pulses[name] = time.monotonic(), pulse

    def last_pulse(self, name: str) -> tuple[float, Pulse]:
        """Return the seconds since a worker said anything, and its last pulse. Raises KeyError for an unknown worker."""
        at, pulse = self._pulses[name]
        return time.monotonic() - at, pulse

    def hub_is_back(self) -> None:
        """Publish the orders again, which the hub may have lost, and wait for every worker to say that it is there.

        The hub may not know which workers were lost meanwhile.
        """
        self._silent_until = dict.fromkeys(self.online, time.monotonic() + self._timeouts.silence_s)
        self.order_again()

    def lapsed(self) -> list[str]:
        """Drop the workers that stayed silent after the hub was gone; set aside those that could not load in several tries.

        Return both groups. A worker that has tries left is asked to load again when it is time.
        """
        now = time.monotonic()
        gone = [name for name, until in self._silent_until.items() if until < now and name in self.online]
        for name in gone:
            self.drop(name)
        for name, reason in self._obedience.overdue(now).items():
            self.set_aside(name, reason)
            gone.append(name)
        for name, trouble in [*self._troubles.items()]:
            if trouble.retry_at >= now:
                continue
            if trouble.tries > _LOAD_RETRIES:
                self.set_aside(name, "it cannot load its sub-bundles")
                gone.append(name)
            else:
                self._delay_retry(name, trouble.tries)
                self.order_again(name)
        return gone

    def _delay_retry(self, name: str, tries: int) -> None:
        self._troubles[name] = _LoadTrouble(tries=tries, retry_at=time.monotonic() + self._timeouts.load_retry_s)

    def drop(self, name: str) -> None:
        """Forget a worker that is gone."""
        del self.online[name]
        self._silent_until.pop(name, None)
        self._pulses.pop(name, None)
        self._forget_conduct(name)

    def _forget_conduct(self, name: str) -> None:
        """Forget how a process loaded and answered: another may have the name now."""
        self._set_aside.pop(name, None)
        self._troubles.pop(name, None)
        self._obedience.forget(name)
        self._unanswered.pop(name, None)
        self._speeds.forget(name)
        self._monitor.forget(name)

    def set_aside(self, name: str, reason: str) -> None:
        """Give a worker nothing more until it is started again, and if that helped nothing, for longer. Say so."""
        _log.warning("%s is set aside: %s", name, reason)
        self._set_aside[name] = reason
        self._troubles.pop(name, None)
        self._obedience.forget(name)
        self._obedience.offended(name, time.monotonic())

    def set_aside_because(self, name: str) -> str | None:
        """Return why a worker gets nothing more, or None if it may get sub-bundles."""
        barred = "it was set aside before" if self._obedience.is_barred(name, time.monotonic()) else None
        return self._set_aside.get(name, barred)

    def answered(self, name: str) -> None:
        """Note that a worker has computed something."""
        self._unanswered.pop(name, None)
        self._obedience.acquit(name)

    def unanswered(self, name: str) -> bool:
        """Note that a lease has ended without a worker's answer; return whether it never answers."""
        self._unanswered[name] += 1
        return self._unanswered[name] >= MAX_UNANSWERED and name in self.online and name not in self._set_aside

    def capacities(self, safe: frozenset[str] | None) -> list[WorkerCapacity]:
        """Return the capacity of every usable worker, sorted by name; only ``safe`` ones may see inputs (None: all may)."""
        return [
            _capacity(name, state, self._speeds.bound(name), safe=safe is None or name in safe)
            for name, state in sorted(self.online.items())
            if self.set_aside_because(name) is None and name not in self.drained
        ]

    def describe(self, name: str) -> str:
        """Return a worker's capacity as text for the operator."""
        state = self.online[name]
        group = f"a group of {state.group}, " if state.group else ""
        threads = f"{state.threads} thread{'' if state.threads == 1 else 's'}"
        return f"{group}{state.memory_bytes / 1e6:.0f} MB, {threads}, {state.macs_per_s / 1e9:.1f} GMAC/s"

    def has_obeyed(self, name: str) -> bool:
        """Return whether a worker holds what it was ordered to, or has no orders, or is gone or set aside."""
        state, orders = self.online.get(name), self._orders.get(name)
        if state is None or orders is None or self.set_aside_because(name) is not None:
            return True
        ordered = {order.number for order in orders.sub_bundles}
        return state.epoch == orders.epoch and not state.loading and ordered <= {*state.loaded}

    def order(
        self, placement: Placement, workers: Sequence[WorkerCapacity], only: Collection[str] | None = None
    ) -> dict[str, dict[int, Manifest]]:
        """Order every worker, or those in ``only``, to hold what ``placement`` gives it.

        Return the sub-bundles by worker and number. Raises `BudgetError` if they do not fit.
        """
        assert self._server
        assigned = assign(self._manifest, placement, workers)
        self._epoch += 1
        now = time.monotonic()
        for worker in workers:
            if only is not None and worker.name not in only:
                continue
            busy = worker.name in self._orders and bool(self._orders[worker.name].sub_bundles)
            documents = {number: encode_manifest(part) for number, part in assigned[worker.name].items()}
            hashes = {number: hashlib.sha256(document).hexdigest() for number, document in documents.items()}
            granted: dict[str, Path | bytes] = {hashes[number]: document for number, document in documents.items()}
            for part in assigned[worker.name].values():
                granted.update({file.sha256: self._bundle / file.path for file in part.files})
            self._orders[worker.name] = Orders(
                epoch=self._epoch,
                url=self._server.url,
                token=self._server.grant(worker.name, granted),
                authority=self._server.authority,
                compress=self._compress,
                sub_bundles=tuple(
                    SubBundleOrder(number=number, sha256=hashes[number], size_bytes=len(document))
                    for number, document in documents.items()
                ),
            )
            if documents:
                nbytes = sum(file.size_bytes for part in assigned[worker.name].values() for file in part.files)
                self._obedience.ordered(worker.name, self._epoch, nbytes, busy=busy, now=now)
            else:
                self._obedience.forget(worker.name)
        for name in [None] if only is None else only:
            self.order_again(name)
        return assigned

    def order_again(self, only: str | None = None) -> None:
        """Publish the orders of all workers, or of one, again; a worker then tries to load what it lacks."""
        if self._connection:
            for name, orders in self._orders.items():
                if name in self.online and only in (None, name):
                    self._connection.publish(
                        topic(Role.WORKER, name, "orders"), messages.encode_message(orders), retain=True
                    )


def _capacity(name: str, state: WorkerState, bound: int | None = None, *, safe: bool = True) -> WorkerCapacity:
    """Return a worker's capacity; ``bound`` is the most multiply-adds a second that are believed."""
    return WorkerCapacity(
        name=name,
        memory_bytes=state.memory_bytes,
        macs_per_s=max(1, state.macs_per_s if bound is None else min(bound, state.macs_per_s)),
        storage_bytes_per_s=max(1, state.storage_bytes_per_s),
        safe=safe,
        group=state.group,
        board_class=state.board_class,
        link=state.link,
    )
