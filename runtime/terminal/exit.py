"""End a command with the right exit code: done, a mistake the user can mend, a signal, or a closed output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from hyps.runtime.signals import ignore_signals, received_signal
from hyps.runtime.terminal.console import drop_stdout, say

#: The last sentence of every command's ``--help``.
EXIT_CODES = (
    "Exit codes: 0 done; 1 a check failed, or a bug (with a traceback); 2 a mistake that you can mend (one line says how); "
    "130 ctrl-C; 141 the reader of the output is gone; 143 SIGTERM."
)


def run_and_exit(program: str, act: Callable[[], int | None], mendable: tuple[type[Exception], ...]) -> NoReturn:
    """Run ``act`` and exit with its status; print an error of the ``mendable`` types as one line and exit with 2."""
    try:
        status = act()
        sys.stdout.flush()
        ignore_signals()  # the work is done: a signal during interpreter shutdown must not change the exit code
        if number := received_signal():  # its SystemExit was lost, and the work was done all the same
            sys.exit(128 + number)
        sys.exit(status or 0)
    except Exception as error:
        if number := received_signal():  # a library, or an extension module's import, turned its SystemExit into this
            sys.exit(128 + number)
        if isinstance(error, mendable):
            sys.exit(say(error, program))
        if isinstance(error, BrokenPipeError):
            drop_stdout()
            sys.exit(141)
        raise
