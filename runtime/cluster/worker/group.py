"""Let the workers at a hub below compute as one worker of the hub above (Kaboubi, section 3.3).

A sub-bundle is a bundle, so the group's own manager places its steps on the workers below, as any manager does. The inputs
that the worker above receives are submitted below by clients. A hub serves one manager, and a manager one bundle: a group
gets one sub-bundle (`hyps.runtime.cluster.placement.capacity`), and a second only if no other worker is left for it. It
then switches between the two as their inputs come; a switch takes about a second, as nothing is fetched again.

A group advertises the memory of its largest worker, as each step must fit one worker, and the sum of multiply-adds and
storage bytes a second, as the workers compute and read side by side. Without workers below it offers nothing.
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
from hyps.runtime.cluster.manager.manager import Manager
from hyps.runtime.cluster.manager.manager_thread import ManagerThread
from hyps.runtime.cluster.manager.options import ClusterOptions, Timeouts
from hyps.runtime.cluster.protocol.messages import BoardEnergy
from hyps.runtime.cluster.scheduling.dispatch import LEASE_WINDOW
from hyps.runtime.cluster.worker.runner import CallSoon, Capabilities, ResultHandler, SubBundleRunner
from hyps.runtime.errors import HubError, InputError, RuntimeFault
from hyps.runtime.execution.engine import run_one
from hyps.runtime.execution.executor import Outputs

#: A group gives a sub-bundle back if a step lacks a worker, and no worker is loading, for this long.
PATIENCE_S = 5.0
#: The workers are there already, so the manager hardly waits for others.
_OPTIONS = ClusterOptions(timeouts=Timeouts(settle_s=0.3))
_START_S = 120.0
_END_S = 10.0
_log = logging.getLogger(__name__)


class GroupBackend:
    """The workers at the hub below: a `hyps.runtime.cluster.worker.runner.Backend`."""

    def __init__(self, join: Join, journal: Path) -> None:
        self._journal = journal
        self._connection = SharedConnection(join, self._workers_changed)
        self._call_soon: CallSoon = lambda task: None
        self._changed: Callable[[], None] = lambda: None
        self._advertised: Capabilities | None = None
        self._active: _GroupRunner | None = None

    def begin(self, call_soon: CallSoon, changed: Callable[[], None]) -> None:
        """Connect to the hub below, and wait for one that is not there yet. Raises `HubError`."""
        self._call_soon, self._changed = call_soon, changed
        self._connection.open()

    def capabilities(self) -> Capabilities | None:
        """Return what the workers below have together, or None if there are none."""
        states = self._connection.workers()
        if not states:
            return None
        return Capabilities(
            memory_bytes=max(state.memory_bytes for state in states),
            threads=sum(state.threads for state in states),
            macs_per_s=sum(state.macs_per_s for state in states),
            storage_bytes_per_s=sum(state.storage_bytes_per_s for state in states),
            group=sum(max(1, state.group) for state in states),
        )

    def energies(self) -> Mapping[str, BoardEnergy]:
        """Return the energy of the workers' boards below, by name."""
        return self._connection.energies()

    def open(self, folder: Path) -> SubBundleRunner:
        """Have the workers below load a sub-bundle; return when they have. Raises `RuntimeFault`."""
        runner = _GroupRunner(folder, self)
        self.activate(runner)
        return runner

    def close(self) -> None:
        """End the manager and disconnect."""
        if self._active:
            self._active.close()
        self._connection.close()

    def activate(self, runner: _GroupRunner) -> None:
        """Compute this sub-bundle from now on, after the inputs of the one before. Raises `RuntimeFault`."""
        if self._active is not runner:
            if self._active:
                self._active.finish()
                self._active.close()
            self._active = runner
            capabilities = self.capabilities()
            window = LEASE_WINDOW * (capabilities.group if capabilities else 1)
            runner.begin(InProcessHub(self._connection), self._journal, window)

    def closed(self, runner: _GroupRunner) -> None:
        """Note that a sub-bundle is computed no more."""
        if self._active is runner:
            self._active = None

    def call_soon(self, task: Callable[[], None]) -> None:
        """Have ``task`` called on the worker's thread."""
        self._call_soon(task)

    def runner_failed(self) -> None:
        """Tell the worker that a runner has a fault (on any thread)."""
        self._call_soon(self._changed)

    def _workers_changed(self) -> None:
        """Tell the worker if what it advertises has changed (on the connection's thread)."""
        before, self._advertised = self._advertised, self.capabilities()
        if self._advertised != before:
            self._call_soon(self._changed)


class _GroupRunner:
    """A sub-bundle at the group: while it is active, a `_Session` computes it.

    The session's journal is of no use after it ends: whoever ordered the sub-bundle sends its inputs again.
    """

    def __init__(self, folder: Path, backend: GroupBackend) -> None:
        self.manifest = read_manifest(folder)
        self.fault: str | None = None
        self.steps_s = ()
        self._folder, self._backend = folder, backend
        self._session: _Session | None = None

    def begin(self, hub: InProcessHub, journal: Path, window: int) -> None:
        """Start a session; return when the sub-bundle is loaded. Raises `RuntimeFault` if no workers can load it."""
        self._session = _Session(self._folder, hub, journal, window, self._backend.call_soon, self._fail)
        try:
            self._session.start()
        except RuntimeFault:
            self.close()
            raise

    def start(self, inputs: Mapping[str, Any], on_result: ResultHandler) -> None:
        try:
            self._backend.activate(self)
        except RuntimeFault as fault:
            self._fail(fault)
            on_result(fault)
            return
        assert self._session
        self._session.tasks.put((inputs, on_result))

    def make_room(self) -> None:
        """Do nothing: this process holds nothing of a sub-bundle."""

    def finish(self) -> None:
        """Wait until everything that was started has its result."""
        if self._session:
            self._session.tasks.join()

    def close(self) -> None:
        self._backend.closed(self)
        if self._session:
            self._session.stop()
            self._session = None

    def _fail(self, fault: RuntimeFault) -> None:
        self.fault = str(fault)
        self._backend.runner_failed()


class _Session:
    """The manager of one sub-bundle and ``window`` clients that submit inputs to it, until it is stopped.

    ``failed`` is called, on the manager's thread, with a fault that comes after `start` has returned.
    """

    def __init__(
        self,
        folder: Path,
        hub: InProcessHub,
        journal: Path,
        window: int,
        call_soon: CallSoon,
        failed: Callable[[RuntimeFault], None],
    ) -> None:
        self.tasks: queue.Queue[tuple[Mapping[str, Any], ResultHandler] | None] = queue.Queue()
        self._folder, self._hub, self._journal, self._window = folder, hub, journal, window
        self._call_soon, self._failed = call_soon, failed
        self._settled = threading.Event()
        self._last_well_at = time.monotonic()
        self._manager = ManagerThread(
            "manager",
            journal,
            lambda opened: Manager(folder, hub.link, opened, _OPTIONS),
            failed=self._manager_failed,
            watch=self._check_workers,
        )

    def start(self) -> None:
        """Start the manager and the clients; return when the sub-bundle is loaded. Raises `RuntimeFault`."""
        shutil.rmtree(self._journal, ignore_errors=True)
        self._manager.start(_START_S)
        for number in range(self._window):
            threading.Thread(target=self._submit_tasks, name=f"client {number}", daemon=True).start()
        self._settled.wait()
        if self._manager.fault:
            raise self._manager.fault

    def stop(self) -> None:
        """End the manager and the clients."""
        for _ in range(self._window):
            self.tasks.put(None)
        self._manager.stop(_END_S)

    def _manager_failed(self, fault: RuntimeFault) -> None:
        if self._settled.is_set():
            self._failed(fault)
        self._settled.set()

    def _check_workers(self, manager: Manager) -> None:
        """Raise `HubError` if steps have lacked a worker for too long; loading may take as long as it needs."""
        now = time.monotonic()
        if manager.health.ready:
            self._settled.set()
        if manager.health.ready or manager.health.loading:
            self._last_well_at = now
        if now >= self._last_well_at + PATIENCE_S:
            raise HubError(f"no group of workers for this sub-bundle: {manager.health.problem}")

    def _submit_tasks(self) -> None:
        """Submit inputs and report their results (on a client's thread).

        An `InputError` becomes a `HubError`: whether the input is at fault is unknown here, and another worker may succeed.
        """
        with closing(ClusterEngine(self._folder, None, None, link=self._hub.link)) as engine:
            while task := self.tasks.get():
                inputs, on_result = task
                try:
                    result: Outputs | RuntimeFault = run_one(engine, inputs)
                except InputError as fault:
                    result = HubError(f"the group below: {fault}")
                except RuntimeFault as fault:
                    result = fault
                except Exception as error:
                    _log.exception("a bug: a client of the group's manager")
                    result = HubError(f"the group below: {type(error).__name__}")
                self._call_soon(partial(on_result, result))
                self.tasks.task_done()
