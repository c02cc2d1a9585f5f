"""Run a manager on a thread of its own, for a program that has other things to do: the web page, a group of workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as AnswerTimeoutError
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from hyps.runtime.cluster.manager.manager import Manager
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import HubError, RuntimeFault

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class ManagerBusy(HubError):
    """A manager that has not answered in time, or that is not running."""


class ManagerThread:
    """A manager and the thread that runs it, from `start` until `stop` or until the manager fails.

    ``create`` makes the manager, on the thread, with the journal in the folder ``journal``. ``watch`` is called on the
    thread with every tick of the manager, and ends it by raising a `RuntimeFault`. ``failed`` is called on the thread when a
    started manager ends without `stop`. A fault of ``watch`` is reported before the manager closes its link: otherwise its
    clients' inputs would fail at once, and more would follow until somebody heard of the fault.
    """

    def __init__(
        self,
        name: str,
        journal: Path,
        create: Callable[[Journal], Manager],
        *,
        failed: Callable[[RuntimeFault], None],
        watch: Callable[[Manager], None] = lambda manager: None,
    ) -> None:
        self._journal, self._create, self._failed, self._watch = journal, create, failed, watch
        self._manager: Manager | None = None
        self._fault: RuntimeFault | None = None
        self._started, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def fault(self) -> RuntimeFault | None:
        """The fault that ended the manager, or None."""
        return self._fault

    def start(self, timeout_s: float) -> None:
        """Start the thread and wait until the manager is made.

        Raises the `RuntimeFault` that prevented it, or `ManagerBusy` after ``timeout_s`` seconds.
        """
        self._thread.start()
        if not self._started.wait(timeout_s):
            raise ManagerBusy("reading the bundle takes very long; try again later")
        if self._manager is None and self._fault:
            raise self._fault

    def stop(self, timeout_s: float) -> None:
        """End the manager; wait up to ``timeout_s`` seconds for its thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def ask(self, question: Callable[[Manager], _Answer], timeout_s: float) -> _Answer:
        """Return the answer to ``question``, which is called on the manager's thread. Raises `ManagerBusy`."""
        manager = self._manager
        if manager is None:
            raise ManagerBusy("the manager is not running; try again")
        try:
            return manager.ask(lambda: question(manager)).result(timeout_s)
        except AnswerTimeoutError:
            raise ManagerBusy("the manager does not answer; try again") from None

    def _run(self) -> None:
        try:
            with closing(Journal(self._journal)) as journal:
                manager = self._create(journal)
                self._manager = manager
                self._started.set()
                manager.run(until=lambda: self._should_end(manager))
        except RuntimeFault as fault:
            self._fail(fault)
        except Exception as error:
            _log.exception("a bug: the manager has ended")
            self._fail(HubError(f"the manager has ended: {type(error).__name__}"))
        finally:
            self._manager = None
            self._started.set()

    def _should_end(self, manager: Manager) -> bool:
        if self._stopping.is_set():
            return True
        try:
            self._watch(manager)
        except RuntimeFault as fault:
            self._fail(fault)
            return True
        return False

    def _fail(self, fault: RuntimeFault) -> None:
        self._fault = fault
        if self._started.is_set() and not self._stopping.is_set():
            self._failed(fault)
