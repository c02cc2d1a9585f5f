"""How far long work has come and how long the rest takes: one line on standard error, for who looks at a terminal."""

from __future__ import annotations

import sys
import time

from hyps.runtime.terminal.console import moves, width

#: Shorter work tells nothing.
_PATIENCE_S = 1.0
_EVERY_S = 0.2
#: Back to the first column, and clear the line.
_CLEAR = "\r\x1b[K"


class Progress:
    """Tells after a second how many of ``total`` ``things`` are done, each of so many ``parts``; see `clear`."""

    def __init__(self, total: int, things: str = "inputs", parts: int = 1, *, quiet: bool = False) -> None:
        self.shown = not quiet and moves(sys.stderr)
        self._total, self._things, self._parts = total, things, parts
        self._done = 0
        self._started = time.monotonic()
        self._next = self._started + _PATIENCE_S
        self._drawn = False

    def part(self) -> None:
        """One more part is done."""
        self._done += 1
        self._draw()

    def thing(self, number: int) -> None:
        """So many things are done, whatever was told of their parts."""
        self._done = number * self._parts
        self._draw()

    def clear(self) -> None:
        """Take the line away: to print something else, and in the end."""
        if self._drawn:
            self._write("")
            self._drawn = False

    def stage(self, what: str) -> None:
        """Tell what is being done, for work whose parts take unequal time."""
        if self.shown:
            self._write(what)
            self._drawn = True

    def _draw(self) -> None:
        now = time.monotonic()
        if not self.shown or now < self._next or not self._done:
            return
        self._next = now + _EVERY_S
        whole = max(1, self._total * self._parts)
        share = min(1.0, self._done / whole)
        left = round((now - self._started) * (1 - share) / share)
        minutes, seconds = divmod(left, 60)
        of = f"{self._done // self._parts} of {self._total} {self._things}, {share:.0%}"
        self.stage(f"{of}, {minutes // 60}:{minutes % 60:02}:{seconds:02} left")

    def _write(self, line: str) -> None:
        print(_CLEAR + line[: width(sys.stderr) - 1], end="", file=sys.stderr, flush=True)
