"""Handle SIGINT and SIGTERM: end the process at once, unwind first, or make the signals wait."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The signal that this process unwinds for, if one has arrived.
_received: list[int] = []
#: The `deferred_signals` blocks that the main thread is in, and the first signal that arrived meanwhile.
_blocks: list[None] = []
_deferred: list[int] = []


def exit_on_signals() -> None:
    """End the process silently on a signal; to be used during imports, which leave nothing to undo."""
    _handle(lambda number, frame: os._exit(128 + number))


def unwind_on_signals() -> None:
    """Raise SystemExit on the first signal, so that every ``finally`` runs; ignore further ones."""
    _handle(_unwind)


def block_signals() -> None:
    """Block SIGINT and SIGTERM until `exit_on_signals` or `unwind_on_signals` runs, also across ``exec``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Raise nothing for a signal until the ``with`` block ends: msgspec 0.22 crashes if a handler raises inside it.

    Blocking the signals is not enough: one may reach another thread, a library's own, and Python then runs the handler in
    the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():  # Python runs no handler here
        yield
        return
    _blocks.append(None)
    try:
        with _blocked_signals():
            yield
    finally:
        _blocks.pop()
        if _deferred and not _blocks:
            _unwind(_deferred[0], None)


@contextmanager
def commit() -> Iterator[None]:
    """Defer signals while the ``with`` block puts finished files in their place; exit instead if one has arrived before.

    An interrupted command thus leaves nothing, also where the SystemExit of its signal was lost (`received_signal`).
    """
    with deferred_signals():
        if number := received_signal():
            sys.exit(128 + number)
        yield


def received_signal() -> int | None:
    """Return the signal that `unwind_on_signals` handled, also where its SystemExit was lost on the way.

    Python prints and drops an exception that a handler raises inside ``__del__`` or a callback of the garbage collector.
    An import inside an extension module turns it into an ImportError, which another module may take for a missing package.
    """
    return next(iter(_received), None)


def ignore_signals() -> None:
    """Ignore both signals from here on.

    Python complains of a signal that it has noted and that is ignored by the time it looks (``OSError: Signal 2 ignored due
    to race condition``). So noted ones run a handler first, and no more arrive at this thread meanwhile.
    """
    with _blocked_signals():
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell ignores SIGINT for background jobs
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block both signals for this thread inside the ``with`` block."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _unwind(number: int, frame: FrameType | None) -> None:
    if _blocks:
        _deferred.append(number)
        return
    ignore_signals()
    _received.append(number)
    sys.exit(128 + number)
