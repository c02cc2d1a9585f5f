"""Queue calls from any thread for the thread that runs a manager."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

_MAX_EVENTS = 1024
_Answer = TypeVar("_Answer")


class EventQueue:
    """The calls that wait for one thread. `put` and `ask` are thread-safe; the others are for that thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=_MAX_EVENTS)

    def put(self, call: Callable[[], None]) -> None:
        """Have ``call`` run; wait for room if too many calls are queued."""
        self._calls.put(call)

    def ask(self, question: Callable[[], _Answer]) -> Future[_Answer]:
        """Have ``question`` run, and return the future of its answer."""
        future: Future[_Answer] = Future()

        def answer() -> None:
            try:
                future.set_result(question())
            except Exception as error:
                future.set_exception(error)

        self._calls.put(answer)
        return future

    def run_next(self, timeout_s: float) -> bool:
        """Run the next call if one comes within ``timeout_s`` seconds; return whether one did."""
        try:
            call = self._calls.get(timeout=timeout_s)
        except queue.Empty:
            return False
        call()
        return True

    def discard(self) -> None:
        """Drop all calls, so that no thread waits for room forever."""
        with suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
