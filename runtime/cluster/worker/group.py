"""Workers as one worker: a manager of a group holds a share that its own manager gives it (Kaboubi, section 3.3).

A share is a bundle, so the group's manager places its steps on the workers at the hub below, as any manager does; what the
share's inputs are for the worker above, a client's are for the manager below. A hub serves one manager, and a manager one
bundle: a group is given one share (`hyps.runtime.cluster.placement.partitioner`), and a second only where nobody else is left for it. Then
it changes from one to the other as their inputs come: a second or so each time, as nothing is fetched again.

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

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.broker.shared_connection import InProcessHub, SharedConnection
from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.cluster.manager.deployment import ClusterOptions
from hyps.runtime.cluster.manager.manager import Manager
from hyps.runtime.cluster.scheduling.scheduler import LEASE_WINDOW
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.cluster.worker.runner import Abilities, Done, Post, Runner
from hyps.runtime.errors import HubError, InputError, RuntimeFault
from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.executor import Outputs

#: So long a share may be without a worker for one of its steps, and nobody loading, before it is given back.
PATIENCE_S = 5.0
#: Its workers are there already: others are hardly waited for.
_SETTLE_S = 0.3
_END_S = 10.0
log = logging.getLogger(__name__)


class Group:
    """The workers at a hub below: a `hyps.runtime.cluster.worker.runner.Host`."""

    def __init__(self, join: Join, journal: Path) -> None:
        self._journal = journal
        self._hub = SharedConnection(join, self._heard)
        self._post: Post = lambda task: None
        self._changed: Callable[[], None] = lambda: None
        self._seen: Abilities | None = None
        self._active: _Held | None = None

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
        held = _Held(folder, self)
        self.change_to(held)
        return held

    def close(self) -> None:
        """End the manager and take leave of the hub."""
        if self._active:
            self._active.close()
        self._hub.close()

    def change_to(self, held: _Held) -> None:
        """Have this share computed from now on, when the inputs of the one before are. Raises `HubError`."""
        if self._active is not held:
            if self._active:
                self._active.finish()
                self._active.close()
            self._active = held
            abilities = self.abilities()
            held.begin(InProcessHub(self._hub), self._journal, LEASE_WINDOW * (abilities.group if abilities else 1))

    def closed(self, held: _Held) -> None:
        """A share is computed no more."""
        if self._active is held:
            self._active = None

    def post(self, task: Callable[[], None]) -> None:
        """Have something done on the worker's thread."""
        self._post(task)

    def failed(self) -> None:
        """(On a manager's thread.) Its share has a fault."""
        self._post(self._changed)

    def _heard(self) -> None:
        """(On the connection's thread.) Only what the worker advertises is news to it."""
        before, self._seen = self._seen, self.abilities()
        if self._seen != before:
            self._post(self._changed)


class _Held:
    """A share at the group: its manager, on a thread of its own, and clients that hand it inputs, several at a time.

    What it writes to its journal nobody needs when it ends: whoever gave it the share asks again.
    """

    def __init__(self, folder: Path, group: Group) -> None:
        self.manifest = read_manifest(folder)
        self.fault: str | None = None
        self.steps_s = ()
        self._folder, self._group = folder, group
        self._run: _Run | None = None

    def begin(self, desk: InProcessHub, journal: Path, window: int) -> None:
        """Start a manager; returns when all is loaded. Raises `HubError` where nobody can."""
        self._run = _Run(self._folder, desk, journal, window, self._group.post)
        self._run.begin(self._lost)
        if self._run.fault:
            fault = self._run.fault
            self.close()
            raise HubError(fault)

    def start(self, inputs: Mapping[str, Any], done: Done) -> None:
        try:
            self._group.change_to(self)
        except HubError as fault:
            self._lost(str(fault))
            done(fault)
            return
        assert self._run
        self._run.tasks.put((inputs, done))

    def make_room(self) -> None:
        """Nothing of a share is here."""

    def finish(self) -> None:
        """Wait until what was started is done."""
        if self._run:
            self._run.tasks.join()

    def close(self) -> None:
        self._group.closed(self)
        if self._run:
            self._run.end()
            self._run = None

    def _lost(self, fault: str) -> None:
        self.fault = fault
        self._group.failed()


class _Run:
    """One manager of a share, with its clients, from beginning to end."""

    def __init__(self, folder: Path, desk: InProcessHub, journal: Path, window: int, post: Post) -> None:
        self.fault: str | None = None
        self.tasks: queue.Queue[tuple[Mapping[str, Any], Done] | None] = queue.Queue()
        self._folder, self._desk, self._journal, self._window, self._post = folder, desk, journal, window, post
        self._ended = False
        self._settled = threading.Event()
        self._well_at = time.monotonic()

    def begin(self, lost: Callable[[str], None]) -> None:
        """Returns when all is loaded, or with a ``fault``; `lost` is told of one that comes later."""
        self._thread = threading.Thread(target=self._manage, args=(lost,), name="manager", daemon=True)
        self._thread.start()
        for number in range(self._window):
            threading.Thread(target=self._serve, name=f"client {number}", daemon=True).start()
        self._settled.wait()

    def end(self) -> None:
        """End the manager; the clients end by themselves."""
        self._ended = True
        for _ in range(self._window):
            self.tasks.put(None)
        self._thread.join(_END_S)

    def _manage(self, lost: Callable[[str], None]) -> None:
        """(On the manager's thread.) Serve until the share is not wanted any more, or cannot be computed."""
        try:
            shutil.rmtree(self._journal, ignore_errors=True)
            with closing(Journal(self._journal)) as journal:
                manager = Manager(self._folder, self._desk.link, journal, ClusterOptions(settle_s=_SETTLE_S))
                manager.run(until=lambda: self._ended or self._gives_up(manager, lost))
        except RuntimeFault as fault:
            self._lose(str(fault), lost)
        except Exception as error:
            log.exception("a bug: the manager of the group has ended")
            self._lose(f"the manager of the group has ended: {type(error).__name__}", lost)
        self._settled.set()

    def _lose(self, fault: str, lost: Callable[[str], None]) -> None:
        self.fault = fault
        if self._settled.is_set() and not self._ended:
            lost(fault)

    def _gives_up(self, manager: Manager, lost: Callable[[str], None]) -> bool:
        """Whether the share's steps lack a worker for too long; who loads may take as long as that needs.

        That is told before the manager ends: without it every input fails at once, and more come as long as nobody knows.
        """
        now = time.monotonic()
        if manager.health.ready:
            self._settled.set()
        if manager.health.ready or manager.health.loading:
            self._well_at = now
        if now < self._well_at + PATIENCE_S:
            return False
        self._lose(f"no group of workers for this share: {manager.health.problem}", lost)
        return True

    def _serve(self) -> None:
        """(On a client's thread.) Whose fault a failure is remains unknown here: another may do better."""
        with closing(ClusterEngine(self._folder, None, None, link=self._desk.link)) as engine:
            while task := self.tasks.get():
                inputs, done = task
                try:
                    result: Outputs | RuntimeFault = run_one(engine, inputs)
                except InputError as fault:
                    result = HubError(f"the group below: {fault}")
                except RuntimeFault as fault:
                    result = fault
                except Exception as error:
                    log.exception("a bug: a client of the group's manager")
                    result = HubError(f"the group below: {type(error).__name__}")
                self._post(partial(done, result))
                self.tasks.task_done()
