"""Print a command's result, its progress and its explanations, as ``--quiet`` and ``--verbose`` ask."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import msgspec

from hyps.compiler.errors import OptionError
from hyps.compiler.progress import Advance
from hyps.runtime.terminal.console import json_text, moves, note, plain, prose, show
from hyps.runtime.terminal.progress import Progress
from hyps.runtime.units import megabytes

#: Columns of a fact's name.
_NAME_WIDTH = 17
#: Shorter work shows no progress; longer work redraws its line this often.
_PATIENCE_S, _REDRAW_S = 1.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The outputs of one command. ``quiet``: nothing but the result; ``verbose``: explanations on standard error."""

    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise OptionError("--quiet and --verbose exclude each other; give one")

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Advance]:
        """Show the progress of the block on a terminal, and say how long it took if verbose; yield what advances it."""
        began = time.perf_counter()
        with _progress_line(label, total, quiet=self.quiet) as advance:
            yield advance
        self.explain([f"{label}: {time.perf_counter() - began:.2f} s"])

    def explain(self, lines: Iterable[str]) -> None:
        """Print the lines on standard error if verbose."""
        for line in lines if self.verbose else ():
            note(line, "hypsc")

    def wrote(self, *paths: Path) -> None:
        """Say which files a command wrote, unless it is quiet; a path is never wrapped, so that it can be copied."""
        if not self.quiet:
            show(f"wrote {plain(str(path))}, {megabytes(path.stat().st_size)}" for path in paths)


def print_json(data: Any) -> None:
    """Print data as indented JSON on standard output."""
    show([json_text(msgspec.json.format(msgspec.json.encode(data), indent=2))])


def fact(name: str, value: str) -> list[str]:
    """Return the lines of one fact: its name in the first column, then its value, wrapped."""
    return prose(f"{name:<{_NAME_WIDTH}}{value}", sys.stdout, _NAME_WIDTH)


def unwrapped_fact(name: str, value: str) -> str:
    """Return a fact in one line of any length, for a value that is to be copied."""
    return f"{name:<{_NAME_WIDTH}}{plain(value)}"


def shell_word(path: str) -> str:
    """Return a path as one word that can be pasted into a shell; bash and zsh read characters that cannot be shown."""
    if path.isprintable():
        return shlex.quote(path)
    spelt = (char if char.isprintable() and char not in "'\\" else _shell_escape(char) for char in path)
    return f"$'{''.join(spelt)}'"


def _shell_escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 input``, ``2 inputs``."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


@contextmanager
def _progress_line(label: str, total: int | None, *, quiet: bool) -> Iterator[Advance]:
    """Show a label after a second, then the share that is done and the time left; clear the line at the end.

    The label appears even if nothing advances. Several threads may advance it.
    """
    if quiet or not moves(sys.stderr):
        yield lambda count: None
        return
    line = Progress(total or 0)
    began, done, due, lock = time.monotonic(), 0, time.monotonic() + _PATIENCE_S, Lock()

    def advance(count: int) -> None:
        nonlocal done, due
        with lock:
            done += count
            now = time.monotonic()
            if total and now >= due:
                due = now + _REDRAW_S
                share = min(1.0, done / total)
                minutes, seconds = divmod(round((now - began) * (1 - share) / share), 60)
                line.stage(f"{label}: {share:.0%}, {minutes // 60}:{minutes % 60:02}:{seconds:02} left")

    timer = Timer(_PATIENCE_S, line.stage, [label])
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()
        line.clear()
