"""What is told to people: lines on standard output and standard error, in colour on a terminal that wants it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from hyps.runtime.errors import OutputError

#: Where there is no terminal: what a page or a mail takes without wrapping.
WIDTH = 100


def width(stream: TextIO) -> int:
    """Columns that a line may have: what ``COLUMNS`` says, or the terminal."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and len(told) < 6 and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):  # no terminal, or no file
        return WIDTH


def height(stream: TextIO) -> int:
    """Lines that can be seen at once; where there is no terminal, any number."""
    try:
        return os.get_terminal_size(stream.fileno()).lines or sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize


def moves(stream: TextIO) -> bool:
    """Whether what was written can be overwritten: only on a terminal, and not on every one."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """Text in an ANSI style (``1``: bold, ``31``: red) where that is a terminal and ``NO_COLOR`` is not set."""
    return f"\x1b[{style}m{text}\x1b[0m" if moves(stream) and not os.environ.get("NO_COLOR") else text


def plain(text: str) -> str:
    """One line, whatever names a file holds: line ends and terminal codes are spelt out."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def prose(text: str, stream: TextIO, indent: int = 4) -> list[str]:
    """A sentence in lines that fit, the second and later ones by ``indent``; a word that is too long stays whole."""
    import textwrap  # most runs tell nothing that long

    hanging = " " * indent
    wrapped = textwrap.TextWrapper(width(stream), "", hanging, break_long_words=False, break_on_hyphens=False)
    return wrapped.wrap(plain(text)) or [""]


def say(message: object, program: str = "hyps-run") -> int:
    """Tell the user in one line what is wrong; the exit code that goes with it."""
    print(f"{styled(program, '31', sys.stderr)}: {plain(str(message))}", file=sys.stderr, flush=True)
    return 2


def note(message: object, program: str = "hyps-run") -> None:
    """Tell the user something beside the result."""
    print("\n".join(prose(f"{program}: {message}", sys.stderr)), file=sys.stderr, flush=True)


def show(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines at once, in characters that the output can take.

    Raises `OutputError` where they cannot be, BrokenPipeError where the reader went away.
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
    """Let go of an output that takes no more, or Python tries again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
