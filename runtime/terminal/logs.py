"""Set up logging for a command: one line a message, on standard error."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(program: str, *, verbose: bool = False, quiet: bool = False) -> None:
    """Log warnings to standard error; with ``verbose`` also what happens, with ``quiet`` errors alone."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format=f"{program}: %(message)s")
