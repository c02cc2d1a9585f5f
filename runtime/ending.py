"""How every command ends: done, by what the user can mend, by a signal, or because nobody reads on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hyps.runtime.terminal import drop_stdout, say

#: What ``--help`` says of each command.
EXIT_CODES = (
    "Exit codes: 0 done; 1 a check failed, or a bug, with a traceback; 2 what you can mend, told in one line; "
    "130 ctrl-C; 141 nobody reads the output; 143 SIGTERM."
)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """From here on ctrl-C and SIGTERM end the process silently: while it imports there is nothing to undo."""
    _heed(lambda number, frame: os._exit(128 + number))


def end_tidily() -> None:
    """From here on they unwind what was begun, so that nothing is left of it; impatient further ones are ignored."""
    _heed(_unwind)


def hold_signals() -> None:
    """Have them wait until one of the above is called, in this program or the one that takes its place."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def deferring() -> Iterator[None]:
    """Have them wait while the block runs: msgspec 0.22 crashes where a handler raises while it looks at types."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def ended(program: str, act: Callable[[], int | None], mendable: tuple[type[Exception], ...]) -> NoReturn:
    """Do what a command does and exit; what is ``mendable`` is told in one line."""
    try:
        status = act()
        sys.stdout.flush()
        _ignore()  # it is done: to be stopped while Python takes itself down would say otherwise
        sys.exit(status or 0)
    except mendable as error:
        sys.exit(say(error, program))
    except ImportError as error:  # extension modules turn into it whatever a signal raises while they are initialised
        if isinstance(error.__cause__, SystemExit):
            sys.exit(error.__cause__.code)
        raise
    except BrokenPipeError:
        drop_stdout()
        sys.exit(141)


def _heed(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a script
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _unwind(number: int, frame: FrameType | None) -> None:
    _ignore()
    sys.exit(128 + number)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
