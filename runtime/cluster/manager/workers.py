"""Keep the manager's registry of workers: who is connected, what each holds, and who gets no more orders."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.obedience import Obedience
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.worker_orders import WorkerOrders
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.protocol.messages import Pulse, WorkerState
from hyps.runtime.cluster.protocol.tally import Tally
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
        self._timeouts = options.timeouts
        self.online: dict[str, WorkerState] = {}
        self._set_aside: dict[str, str] = {}
        self.drained: set[str] = set()
        self._pulses: dict[str, tuple[float, Pulse]] = {}
        self._silent_until: dict[str, float] = {}
        self._troubles: dict[str, _LoadTrouble] = {}
        self._obedience = Obedience(options.timeouts, options.lease_s)
        self.orders = WorkerOrders(bundle, manifest, listen, options, self.online, self._obedience)
        self._unanswered: Counter[str] = Counter()
        self._speeds, self._monitor = speeds, monitor
        self._problems = Tally()

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
        current = self.orders.are_known(name, state)
        if current:
            self._obedience.answered(name, state.epoch, time.monotonic(), done=self.orders.are_carried_out(name, state))
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
        self.orders.publish()

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
                self.orders.publish(name)
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
            replace(
                _capacity(name, state, self._speeds.bound(name), safe=safe is None or name in safe),
                message_s=self.message_s(name),
            )
            for name, state in sorted(self.online.items())
            if self.set_aside_because(name) is None and name not in self.drained
        ]

    def message_s(self, name: str) -> float | None:
        """Return the seconds of a message that a worker measured under load, or else before; None if it did not."""
        under_load = self._pulses[name][1].message_s
        return self.online[name].message_s if under_load is None else under_load

    def describe(self, name: str) -> str:
        """Return a worker's capacity as text for the operator."""
        state = self.online[name]
        group = f"a group of {state.group}, " if state.group else ""
        threads = f"{state.threads} thread{'' if state.threads == 1 else 's'}"
        return f"{group}{state.memory_bytes / 1e6:.0f} MB, {threads}, {state.macs_per_s / 1e9:.1f} GMAC/s"

    def holds_orders(self, name: str) -> bool:
        """Return whether a worker has read its newest orders, and these have it hold something."""
        state, orders = self.online.get(name), self.orders.of(name)
        return bool(state and orders and orders.sub_bundles) and self.orders.are_known(name, self.online[name])

    def has_obeyed(self, name: str) -> bool:
        """Return whether a worker holds what it was ordered to, or has no orders, or is gone or set aside."""
        state = self.online.get(name)
        if state is None or self.orders.of(name) is None or self.set_aside_because(name) is not None:
            return True
        return self.orders.are_carried_out(name, state)


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
