"""Set up logging for a command: one line a message, on standard error."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from hyps.runtime.terminal.console import plain

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PlainFormatter(logging.Formatter):
    """A formatter that spells out terminal codes and line ends, which names and messages of others may hold."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the message as one line."""
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802
        """Return a traceback: the lines of the code as they are, each exception as one line."""
        import traceback  # few logs hold one

        assert ei[1] is not None
        parts = traceback.TracebackException.from_exception(ei[1]).format()
        return "\n".join(
            plain(line)
            for part in parts
            for line in (part.splitlines() if part.startswith("  File ") else [part.strip("\n")])
        )


def log_to_stderr(program: str, *, verbose: bool = False, quiet: bool = False) -> None:
    """Log warnings to standard error; with ``verbose`` also what happens, with ``quiet`` errors alone."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"{program}: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)
