"""How much a command of ``hypsc`` tells besides its result, all of it on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer

from hyps.compiler.bundle_writer.copy import CopyProgress as Advance
from hyps.compiler.errors import OptionError
from hyps.runtime.terminal.console import moves, note

#: Shorter work shows no bar.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """``quiet``: nothing; ``verbose``: what is done, how long it takes, and why; else how far it is, on a terminal."""

    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise OptionError("--quiet and --verbose exclude each other; give one")

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Advance]:
        """Show how far work is, out of so many (None: unknown), while the block runs; yields what advances it."""
        began = time.perf_counter()
        if self.quiet or not moves(sys.stderr):
            yield lambda count: None
        else:
            with _bar(what, total) as advance:
                yield advance
        self.note(f"{what}: {time.perf_counter() - began:.2f} s")

    def note(self, *lines: str) -> None:
        """Tell these lines if it is ``verbose``."""
        for line in lines if self.verbose else ():
            note(line, "hypsc")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    """A bar with the time left (a moving one without ``total``), from a second on, that vanishes in the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    begin = Timer(_PATIENCE_S, bar.start)
    begin.daemon = True
    begin.start()
    try:
        yield lambda count: bar.advance(task, count)
    finally:
        begin.cancel()
        begin.join()
        if bar.live.is_started:
            bar.stop()
