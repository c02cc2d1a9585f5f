"""Print lines for people on standard output and standard error, in colour where the terminal allows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO

from hyps.runtime.errors import OutputError
from hyps.runtime.errors import plain as plain

#: The width where there is no terminal: what a page or a mail shows without wrapping.
WIDTH = 100
#: The styles of `styled`, and the characters that a terminal or a browser may not show as they are.
_STYLES = re.compile("\x1b\\[[0-9]{1,2}m")
_UNUSUAL = re.compile(r"[^\n -~]+")


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


def json_text(document: bytes) -> str:
    """Return a JSON document as text whose unprintable characters, which names may hold, are JSON's ``\\u`` escapes."""
    return _UNUSUAL.sub(lambda found: "".join(map(_json_escape, found[0])), document.decode())


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return char if char.isprintable() else "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _safe(text: str, out: TextIO) -> str:
    """Return lines to print: terminal codes other than our own styles are spelt out, if `plain` was forgotten anywhere."""
    styles = _STYLES.findall(text) if moves(out) else []
    parts = _STYLES.split(text) if styles else [text]
    spelt = [_UNUSUAL.sub(lambda found: plain(found[0]), part) for part in parts]
    return "".join(part + style for part, style in zip(spelt, [*styles, ""], strict=True))


def prose(text: str, stream: TextIO, indent: int = 4) -> list[str]:
    """Wrap a sentence into lines that fit, all but the first indented; a word that is too long stays whole."""
    import textwrap  # most runs print nothing that long

    hanging = " " * indent
    wrapped = textwrap.TextWrapper(width(stream), "", hanging, break_long_words=False, break_on_hyphens=False)
    return wrapped.wrap(plain(text)) or [""]


def say(message: object, program: str = "hyps-run") -> int:
    """Print one line that says what is wrong; return the exit code that stands for it."""
    _write(f"{styled(program, '31', sys.stderr)}: {plain(str(message))}\n", sys.stderr)
    return 2


def note(message: object, program: str = "hyps-run") -> None:
    """Print a message for the user that is not part of the result."""
    _write("\n".join([*prose(f"{program}: {message}", sys.stderr), ""]), sys.stderr)


def show(lines: Iterable[str], stream: TextIO | None = None, *, over: int = 0) -> None:
    """Print lines without delay, in characters that the output can show, over the last ``over`` lines of a terminal.

    Raises `OutputError` where they cannot be written, BrokenPipeError where the reader is gone.
    """
    out = stream or sys.stdout
    encoding = out.encoding or "utf-8"
    try:
        if over:
            _write(f"\x1b[{over}F\x1b[J" if moves(out) else "\n", out)
        for line in lines:
            _write(_safe(line, out).encode(encoding, "backslashreplace").decode(encoding) + "\n", out)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        raise OutputError(f"cannot print the result: {error.strerror}") from None


def _write(text: str, out: TextIO) -> None:
    """Print whole lines at once; ``print`` writes the line end by itself, and another thread's line may come between."""
    out.write(text)
    out.flush()


def drop_stdout() -> None:
    """Replace an output that can no longer be written: Python would try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
