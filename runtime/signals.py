"""Handle SIGINT and SIGTERM: end the process at once, unwind first, or make the signals wait."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The signal that this process unwinds for, if one has arrived.
_received: list[int] = []


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
    """Block both signals inside the ``with`` block: msgspec 0.22 crashes if a handler raises while it inspects types."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def received_signal() -> int | None:
    """Return the signal that `unwind_on_signals` handled, also where its SystemExit was lost on the way.

    Python prints and drops an exception that a handler raises inside ``__del__`` or a callback of the garbage collector.
    """
    return next(iter(_received), None)


def ignore_signals() -> None:
    """Ignore both signals from here on.

    Python complains of a signal that it has noted and that is ignored by the time it looks (``OSError: Signal 2 ignored due
    to race condition``). So noted ones run a handler first, and no more arrive at this thread meanwhile.
    """
    with deferred_signals():
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: None)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell ignores SIGINT for background jobs
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _unwind(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    _received.append(number)
    sys.exit(128 + number)
