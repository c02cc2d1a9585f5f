"""Print lines for people on standard output and standard error, in colour where the terminal allows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from hyps.runtime.errors import OutputError

#: The width where there is no terminal: what a page or a mail shows without wrapping.
WIDTH = 100


def width(stream: TextIO) -> int:
    """Return the columns of a line: what ``COLUMNS`` says, or the terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) < 6 and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):  # not a terminal, or not a file
        return WIDTH


def height(stream: TextIO) -> int:
    """Return the lines that can be seen at once; where there is no terminal, a very large number."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


def moves(stream: TextIO) -> bool:
    """Return whether text can be overwritten: only on a terminal, and not on every terminal."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """Return text in an ANSI style (``1``: bold, ``31``: red) where that is a terminal and ``NO_COLOR`` is not set."""
    return f"\x1b[{style}m{text}\x1b[0m" if moves(stream) and not os.environ.get("NO_COLOR") else text


def plain(text: str) -> str:
    """Return the text as one line: line ends and terminal codes, which names may hold, are spelt out."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def prose(text: str, stream: TextIO, indent: int = 4) -> list[str]:
    """Wrap a sentence into lines that fit, all but the first indented; a word that is too long stays whole."""
    import textwrap  # most runs print nothing that long

    hanging = " " * indent
    wrapped = textwrap.TextWrapper(width(stream), "", hanging, break_long_words=False, break_on_hyphens=False)
    return wrapped.wrap(plain(text)) or [""]


def say(message: object, program: str = "hyps-run") -> int:
    """Print one line that says what is wrong; return the exit code that stands for it."""
    print(f"{styled(program, '31', sys.stderr)}: {plain(str(message))}", file=sys.stderr, flush=True)  # noqa: T201
    return 2


def note(message: object, program: str = "hyps-run") -> None:
    """Print a message for the user that is not part of the result."""
    print("\n".join(prose(f"{program}: {message}", sys.stderr)), file=sys.stderr, flush=True)  # noqa: T201


def show(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines without delay, in characters that the output can show.

    Raises `OutputError` where they cannot be written, BrokenPipeError where the reader is gone.
    """
    out = stream or sys.stdout
    encoding = out.encoding or "utf-8"
    try:
        for line in lines:
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        raise OutputError(f"cannot print the result: {error.strerror}") from None


def drop_stdout() -> None:
    """Replace an output that can no longer be written: Python would try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
