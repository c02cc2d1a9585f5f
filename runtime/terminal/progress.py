"""Show how far long work has come and how long the rest takes, in one line on a terminal's standard error.

Written by hand because ``rich`` would cost a device memory that the network needs.
"""

from __future__ import annotations

import sys
import time

from hyps.runtime.terminal.console import moves, plain, width

#: Shorter work shows nothing.
_DELAY_S = 1.0
_EVERY_S = 0.2
#: Moves to the first column, and clears the line.
_CLEAR = "\r\x1b[K"


class Progress:
    """A line that shows, after a second, how many of ``total`` items are done; each item has this many ``parts``."""

    def __init__(self, total: int, items: str = "inputs", parts: int = 1, *, quiet: bool = False) -> None:
        self._shown = not quiet and moves(sys.stderr)
        self._total, self._items, self._parts = total, items, parts
        self._done = 0
        self._started = time.monotonic()
        self._next = self._started + _DELAY_S
        self._drawn = False

    def part_done(self) -> None:
        """Count one more part."""
        self._done += 1
        self._draw()

    def set_done(self, items: int) -> None:
        """Set the number of items that are done, whatever parts were counted."""
        self._done = items * self._parts
        self._draw()

    def clear(self) -> None:
        """Remove the line, before other output and at the end."""
        if self._drawn:
            self._write("")
            self._drawn = False

    def stage(self, text: str) -> None:
        """Show what is being done, for work whose parts take unequal time."""
        if self._shown:
            self._write(text)
            self._drawn = True

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._shown or now < self._next or not self._done:
            return
        self._next = now + _EVERY_S
        fraction = min(1.0, self._done / max(1, self._total * self._parts))
        left = round((now - self._started) * (1 - fraction) / fraction)
        minutes, seconds = divmod(left, 60)
        of = f"{self._done // self._parts} of {self._total} {self._items}, {fraction:.0%}"
        self.stage(f"{of}, {minutes // 60}:{minutes % 60:02}:{seconds:02} left")

    def _write(self, line: str) -> None:
        print(_CLEAR + plain(line)[: width(sys.stderr) - 1], end="", file=sys.stderr, flush=True)  # noqa: T201
