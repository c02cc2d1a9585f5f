"""Workers as one worker: a manager of a group holds a share that its own manager gives it (Kaboubi, section 3.3).

A share is a bundle, so the group's manager places its steps on the workers at the hub below, as any manager does; what the
share's inputs are for the worker above, a client's are for the manager below. A hub serves one manager, and a manager one
bundle: a group holds one share at a time, and says so (`hyps.runtime.cluster.dealing.Offer`).

It advertises the memory of its largest worker, as each step must fit one; the multiply-adds and the storage's bytes a second
of all, as they compute and read side by side. Where nobody is below, it offers nothing.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.join import Join
from hyps.runtime.cluster.journal import Journal
from hyps.runtime.cluster.manager import Manager
from hyps.runtime.cluster.planning import Wishes
from hyps.runtime.cluster.runner import Abilities, Done, Post, Runner
from hyps.runtime.cluster.scheduler import WINDOW
from hyps.runtime.cluster.subhub import Desk, SubHub
from hyps.runtime.errors import BudgetError, HubError, InputError, RuntimeFault
from hyps.runtime.executor import Outputs
from hyps.runtime.integrity import read_manifest

#: So long a share may be without a worker for one of its steps, and nobody loading, before it is given back.
PATIENCE_S = 10.0
#: Its workers are there already: others are hardly waited for.
_SETTLE_S = 0.3
_END_S = 10.0
log = logging.getLogger(__name__)


class Group:
    """The workers at a hub below: a `hyps.runtime.cluster.runner.Host`."""

    def __init__(self, join: Join, journal: Path) -> None:
        self._journal = journal
        self._hub = SubHub(join, self._heard)
        self._post: Post = lambda task: None
        self._changed: Callable[[], None] = lambda: None
        self._seen: Abilities | None = None
        self._held: _Held | None = None

    def begin(self, post: Post, changed: Callable[[], None]) -> None:
        """Look who is below; a hub that is not there yet is waited for. Raises `HubError`."""
        self._post, self._changed = post, changed
        self._hub.open()

    def abilities(self) -> Abilities | None:
        """What the workers below have together; None where there are none."""
        states = self._hub.workers()
        if not states:
            return None
        return Abilities(
            memory_bytes=max(state.memory_bytes for state in states),
            threads=sum(state.threads for state in states),
            macs_per_s=sum(state.macs_per_s for state in states),
            storage_bytes_per_s=sum(state.storage_bytes_per_s for state in states),
            group=sum(max(1, state.group) for state in states),
        )

    def open(self, folder: Path) -> Runner:
        """Have the workers below load a share; returns when they have. Raises `RuntimeFault`."""
        if self._held and not self._held.closed:
            raise BudgetError("a group of workers holds one share at a time")
        abilities = self.abilities()
        window = WINDOW * (abilities.group if abilities else 1)
        self._held = _Held(folder, self._hub, self._journal, window, self._post, self._changed)
        self._held.begin()
        return self._held

    def close(self) -> None:
        """End the manager and take leave of the hub."""
        if self._held:
            self._held.close()
        self._hub.close()

    def _heard(self) -> None:
        """(On the connection's thread.) Only what the worker advertises is news to it."""
        before, self._seen = self._seen, self.abilities()
        if self._seen != before:
            self._post(self._changed)


class _Held:
    """A share at the group: its manager, on a thread of its own, and clients that hand it inputs, several at a time.

    What it writes to its journal nobody needs when it ends: whoever gave it the share asks again.
    """

    def __init__(
        self, folder: Path, hub: SubHub, journal: Path, window: int, post: Post, changed: Callable[[], None]
    ) -> None:
        self.manifest = read_manifest(folder)
        self.fault: str | None = None
        self.closed = False
        self._folder, self._journal, self._window = folder, journal, window
        self._post, self._changed = post, changed
        self._desk = Desk(hub)
        self._settled = threading.Event()
        self._well_at = time.monotonic()
        self._tasks: queue.SimpleQueue[tuple[Mapping[str, Any], Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._manage, name="manager", daemon=True)

    def begin(self) -> None:
        """Start the manager; returns when all is loaded. Raises `HubError` where nobody can."""
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:  # the worker ends
            self.close()
            raise
        if self.fault:
            self.close()
            raise HubError(self.fault)
        for number in range(self._window):
            threading.Thread(target=self._serve, name=f"client {number}", daemon=True).start()

    def start(self, inputs: Mapping[str, Any], done: Done) -> None:
        self._tasks.put((inputs, done))

    def make_room(self) -> None:
        """Nothing of a share is here."""

    def close(self) -> None:
        self.closed = True
        for _ in range(self._window):
            self._tasks.put(None)
        self._thread.join(_END_S)

    def _manage(self) -> None:
        """(On the manager's thread.) Serve until the share is not wanted any more, or cannot be computed."""
        try:
            shutil.rmtree(self._journal, ignore_errors=True)
            with closing(Journal(self._journal)) as journal:
                wishes = Wishes(settle_s=_SETTLE_S)
                manager = Manager(self._folder, self._desk.link, journal, wishes)
                manager.run(until=lambda: self.closed or self._gives_up(manager))
        except RuntimeFault as fault:
            self.fault = str(fault)
        except Exception as error:
            log.exception("a bug: the manager of the group has ended")
            self.fault = f"the manager of the group has ended: {type(error).__name__}"
        finally:
            self._settled.set()
            if not self.closed:
                self._post(self._changed)

    def _gives_up(self, manager: Manager) -> bool:
        """Whether the share's steps lack a worker for too long; who loads may take as long as that needs."""
        now = time.monotonic()
        if manager.health.ready:
            self._settled.set()
        if manager.health.ready or manager.health.loading:
            self._well_at = now
        if now < self._well_at + PATIENCE_S:
            return False
        self.fault = f"no group of workers for this share: {manager.health.problem}"
        return True

    def _serve(self) -> None:
        """(On a client's thread.) Whose fault a failure is remains unknown here: another may do better."""
        with closing(ClusterEngine(self._folder, None, None, link=self._desk.link)) as engine:
            while task := self._tasks.get():
                inputs, done = task
                try:
                    result: Outputs | RuntimeFault = engine.run(inputs)
                except InputError as fault:
                    result = HubError(f"the group below: {fault}")
                except RuntimeFault as fault:
                    result = fault
                self._post(partial(done, result))
