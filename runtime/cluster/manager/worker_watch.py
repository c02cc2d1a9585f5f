"""Watch a manager's workers: which join, are lost, never answer, are slower than they claim, or change too often.

A credential may be stolen, and a board may be broken. Nothing that one worker says, or does not say, keeps the others from
work for long: what it claims is bounded by what it does, and work that it never answers goes to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.quarantine import QUIET_S, Quarantine
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.upkeep import PlacementUpkeep
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import WorkerState
from hyps.runtime.cluster.scheduling.leases import Lease


class WorkerWatch:
    """The watch over the workers of one manager; ``say`` gets lines for the operator.

    Not thread-safe: use it on the manager's thread.
    """

    def __init__(
        self,
        workers: WorkerRegistry,
        upkeep: PlacementUpkeep,
        deployment: Deployment,
        speeds: MeasuredSpeeds,
        say: Callable[[str], None],
    ) -> None:
        self._workers, self._upkeep, self._deployment = workers, upkeep, deployment
        self._speeds, self._say = speeds, say
        self._quarantine = Quarantine()

    def state(self, name: str, state: WorkerState) -> None:
        """Take a worker's new state."""
        now = time.monotonic()
        if self._quarantine.has(name):
            self._quarantine.hold(name, state, now)
            return
        change = self._workers.update(name, state)
        if change.lost:
            self.lose(name)
        moves = change.lost or change.joined
        disturbs = moves or change.capacity_changed
        if disturbs and not self._quarantine.note(name, state, now, only_capacity=not moves):
            if name in self._workers.online:
                self._workers.drop(name)
                self.lose(name)
            self._say(f"{name} is ignored until it is quiet for {QUIET_S:.0f} s: it comes, goes or changes all the time")
            return
        if change.joined:
            self._say(f"{name} has joined: {self._workers.describe(name)}")
        if change.joined or change.capacity_changed:
            self._upkeep.workers_changed()
        if scheduler := self._deployment.scheduler:
            if change.reconnected:
                scheduler.release(name)
            scheduler.missing(name, (*state.loading, *state.loaded))
            scheduler.replicas.loading(name, change.loading)
            scheduler.replicas.loaded(name, change.loaded)

    def sent(self, lease: Lease) -> None:
        """Note that a worker is sent the inputs of a lease."""
        work = self._deployment.work(lease.worker, lease.key.sub_bundle)
        self._speeds.sent(lease.worker, lease.key, work, time.monotonic())

    def answered(self, name: str, key: Key) -> None:
        """Note a worker's result."""
        self._workers.answered(name)
        if (state := self._workers.online.get(name)) and self._speeds.answered(
            name, key, state.macs_per_s, time.monotonic()
        ):
            bound = self._speeds.bound(name)
            believed = "believed again" if bound is None else f"taken for {bound / 1e9:.3g}, by its answers"
            self._say(f"{name}: its claim of {state.macs_per_s / 1e9:.3g} GMAC/s is {believed}")
            self._upkeep.workers_changed()

    def unanswered(self, name: str, reason: str) -> None:
        """Note a lease that has ended without a result; after many in a row, others that can do the worker's work get it."""
        if self._workers.unanswered(name) and self._upkeep.can_spare(name):
            self.set_aside(name, reason)

    def set_aside(self, name: str, reason: str) -> None:
        """Give a worker nothing more, and its sub-bundles to others."""
        self._workers.set_aside(name, reason)
        self.lose(name)

    def check(self) -> None:
        """Find the workers that are gone or can have no more work; admit those that have been quiet."""
        for name in self._workers.lapsed():
            self.lose(name)
        for name, state in self._quarantine.released(time.monotonic()).items():
            self.state(name, state)

    def lose(self, name: str) -> None:
        """Move a worker's sub-bundles to others."""
        scheduler = self._deployment.scheduler
        numbers = scheduler.lost(name) if scheduler else []
        kind = "sub-bundle" if len(numbers) == 1 else "sub-bundles"
        self._say(f"{name} is gone" + (f": {kind} {', '.join(map(str, numbers))} must move" if numbers else ""))
        self._upkeep.workers_changed()
        if scheduler and (scheduler.jobs or self._upkeep.move_phase):
            self._upkeep.mend_if_needed()
