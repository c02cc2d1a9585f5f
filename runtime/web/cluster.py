"""Run the page's cluster: one connection to the hub, and one manager at a time, for the bundle that is served.

The connection outlives the managers, as it does in a group of workers (`hyps.runtime.cluster.broker.shared_connection`).
The page's own jobs do not pass through the hub.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.shared_connection import InProcessHub, SharedConnection
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.manager.manager import Manager
from hyps.runtime.cluster.manager.manager_thread import ManagerBusy, ManagerThread
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.status import Status, WorkerLine
from hyps.runtime.cluster.protocol.messages import WorkerState, encode_message
from hyps.runtime.cluster.protocol.topics import STATUS
from hyps.runtime.cluster.scheduling.trace import Span
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.web.errors import Busy, Conflict, Missing

_ANSWER_S, _END_S, _START_S = 5.0, 20.0, 120.0
_Answer = TypeVar("_Answer")


class Cluster:
    """The hub's connection and the manager of the bundle that is served.

    ``changed`` is called on any thread when the status may have changed. ``ended`` is set when the manager has failed;
    ``fault`` then says why.
    """

    def __init__(
        self,
        join: Join,
        options: ClusterOptions,
        listen: str | None,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._options, self._listen, self._say, self._changed = options, listen, say, changed
        self._hub = SharedConnection(join, changed, clients=True)
        self._drained: set[str] = set()
        self._serving: _Serving | None = None
        self._lock = threading.RLock()
        self.ended = threading.Event()
        self.fault: RuntimeFault | None = None

    def open(self) -> None:
        """Connect, and wait for a hub that does not run yet. Raises `HubError`."""
        self._hub.open()

    def close(self) -> None:
        """End the manager and disconnect."""
        with self._lock:
            if self._serving:
                self._serving.end()
        self._hub.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the hub."""
        return self._hub.connected

    @property
    def bundle(self) -> str | None:
        """The name of the bundle that is served."""
        serving = self._serving
        return serving.name if serving else None

    def serve(self, name: str, folder: Path, journal: Path) -> None:
        """Serve a bundle instead of the current one. Raises `Conflict` while the current one's jobs are under way.

        Raises another `RuntimeFault` if the bundle cannot be served; the current one is then still served.
        """
        with self._lock:
            before = self._serving
            if before and (status := before.status()) and status.jobs:
                raise Conflict(f"{_jobs(status.jobs)} under way; wait until they are done, or cancel them")
            following = _Serving(name, folder, journal, self)
            if before:
                before.end()
            try:
                following.begin(self._hub)
            except RuntimeFault:
                if before:
                    before.begin(self._hub)
                raise
            self._serving = following
        self._changed()

    def status(self) -> Status | None:
        """Return the manager's status, or None if nothing is served or the manager does not answer."""
        serving = self._serving
        return serving.status() if serving else None

    def publish_idle(self) -> None:
        """Publish an empty status while no bundle is served, because no manager runs then that would publish one."""
        if self._serving is None and self._hub.connected:
            idle = Status(model="", jobs=0, answered=0, answered_per_s=0.0, workers=tuple(self.workers()))
            expiry_s = self._options.timeouts.status_expiry_s
            self._hub.publish(STATUS, encode_message(idle), retain=True, expiry_s=expiry_s)

    def problem(self) -> str | None:
        """Return why nothing can be computed now, or None if it can or the reason is not known."""
        serving = self._serving
        with suppress(Busy):
            return serving.ask(lambda manager: None if manager.health.ready else manager.health.trouble) if serving else None
        return None

    def workers(self) -> Sequence[WorkerLine]:
        """Return the connected workers; while no bundle is served, only what they report themselves is known."""
        status = self.status()
        return status.workers if status else [_line(name, state, seen_s) for name, state, seen_s in self._hub.heard()]

    def spans(self, job: str) -> list[Span]:
        """Return where a job's time went, as far as it is known."""
        serving = self._serving
        with suppress(Busy):
            return serving.ask(lambda manager: manager.spans(job)) if serving else []
        return []

    def cancel(self, job: str) -> None:
        """Have the manager give up a job. Raises `Busy`."""
        if serving := self._serving:
            serving.ask(lambda manager: manager.cancel(job))

    def drain(self, worker: str, *, drained: bool) -> None:
        """Move a worker's sub-bundles elsewhere and give it no more, or let it hold some again. Raises `Missing`."""
        if drained and worker not in {line.name for line in self.workers()}:
            raise Missing(f"worker {worker} is not connected")
        (self._drained.add if drained else self._drained.discard)(worker)
        if serving := self._serving:
            serving.ask(lambda manager: manager.upkeep.drain(worker, drained=drained))

    def move(self, homes: Mapping[str, Sequence[str]] | None) -> None:
        """Move sub-bundles, by number, to the workers named; None lets the manager place all. Raises `Conflict`."""
        serving = self._serving
        if serving is None:
            raise Conflict("no bundle is served")
        if invalid := [number for number in homes or {} if not (number.isascii() and number.isdecimal())]:
            raise Conflict(f"sub-bundle {invalid[0]!r} does not exist; GET /api/status lists their numbers")
        moves = {int(number[:9]): names for number, names in (homes or {}).items()}
        try:
            serving.ask(lambda manager: manager.upkeep.place_anew() if homes is None else manager.upkeep.move(moves))
        except (Busy, Conflict):
            raise
        except RuntimeFault as reason:
            raise Conflict(str(reason)) from None

    def engine(self, bundle: str, *, exact: bool) -> ClusterEngine:
        """Return a client of the manager of this bundle. Raises `Conflict` if another bundle is served now.

        With ``exact``, nothing that it gets is decoded.
        """
        serving = self._serving
        if serving is None or serving.name != bundle:
            raise Conflict(f"bundle {bundle} is not served any more; submit the input again")
        return serving.engine(exact=exact)

    def manager(self, hub: InProcessHub, folder: Path, journal: Journal) -> Manager:
        """Return a manager of a bundle, on which the operator's drained workers are drained."""
        manager = Manager(folder, hub.link, journal, self._options, listen=self._listen, say=self._say, watch=self._changed)
        for worker in self._drained:
            manager.upkeep.drain(worker, drained=True)
        return manager

    def failed(self, fault: RuntimeFault) -> None:
        """Note that the manager has failed; this runs on the manager's thread."""
        self.fault = fault
        self.ended.set()


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number} jobs are"


def _line(name: str, state: WorkerState, seen_s: float) -> WorkerLine:
    return WorkerLine(
        name=name,
        memory_bytes=state.memory_bytes,
        macs_per_s=state.macs_per_s,
        loading=(),
        loaded=(),
        leases=0,
        computed_per_s=0.0,
        seen_s=seen_s,
        group=state.group,
    )


class _Serving:
    """The manager of one bundle: `begin` starts it, also again after `end`."""

    def __init__(self, name: str, folder: Path, journal: Path, cluster: Cluster) -> None:
        self.name, self._folder, self._journal, self._cluster = name, folder, journal, cluster
        self._hub: InProcessHub | None = None
        self._thread: ManagerThread | None = None

    def begin(self, connection: SharedConnection) -> None:
        """Start the manager and wait until it serves. Raises `RuntimeFault`."""
        hub = self._hub = InProcessHub(connection)
        self._thread = ManagerThread(
            f"manager of {self.name}",
            self._journal,
            lambda journal: self._cluster.manager(hub, self._folder, journal),
            failed=self._cluster.failed,
        )
        try:
            self._thread.start(_START_S)
        except ManagerBusy as busy:
            raise Busy(str(busy)) from None

    def end(self) -> None:
        """End the manager."""
        if self._thread:
            self._thread.stop(_END_S)
        self._thread = None

    def engine(self, *, exact: bool) -> ClusterEngine:
        """Return a client of the manager."""
        assert self._hub
        return ClusterEngine(self._folder, None, None, link=self._hub.link, exact=exact)

    def status(self) -> Status | None:
        """Return the manager's status, or None if it does not answer."""
        with suppress(Busy):
            return self.ask(Manager.status)
        return None

    def ask(self, question: Callable[[Manager], _Answer]) -> _Answer:
        """Return the answer to ``question``, which is called on the manager's thread. Raises `Busy`."""
        if (thread := self._thread) is None:
            raise Busy("the manager is not running; try again")
        try:
            return thread.ask(question, _ANSWER_S)
        except ManagerBusy as busy:
            raise Busy(str(busy)) from None
