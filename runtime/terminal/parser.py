"""Parse the command lines of the device's commands with argparse, whose import costs a device least.

A wrong command line is one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hyps.runtime.terminal.console import say
from hyps.runtime.terminal.exit import EXIT_CODES

#: The shells for which `ShowCompletion` has scripts.
_SIZE_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
SHELLS = ("bash", "zsh", "fish")


class HelpFormatter(argparse.HelpFormatter):
    """A formatter that wraps each paragraph of a text alone, and leaves indented paragraphs as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") else super(HelpFormatter, self)._fill_text(part, width, indent)
            for part in paragraphs
        )


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help ends with examples, notes and the exit codes."""

    def __init__(self, *, examples: Sequence[str] = (), epilog: str = "", **settings: Any) -> None:
        shown = "examples:\n\n" + "\n".join(f"  {line}" for line in examples) if examples else ""
        ending = "\n\n".join(part for part in (shown, epilog, EXIT_CODES) if part)
        super().__init__(epilog=ending, formatter_class=HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where the help is, and exit with 2."""
        self.exit(say(f"{message} (see '{self.prog} --help')", self.prog.split()[0]))


class ShowVersion(argparse.Action):
    """An option that prints the versions of the runtime's packages, and of those in ``const``, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the versions and exit; they are looked up only now, as few runs need them."""
        from hyps.runtime.terminal.versions import RUNTIME, version_lines

        sys.stdout.write("\n".join(version_lines(parser.prog, (*RUNTIME, *(self.const or ())))) + "\n")
        parser.exit()


class ShowCompletion(argparse.Action):
    """An option that prints the script by which a shell completes the command line, and exits.

    The scripts are data of this package: ``python -m tests.completions`` writes them from the parsers.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: object, *_: object) -> NoReturn:
        """Print the script for the shell that is named, or that runs, and exit."""
        name = str(shell or Path(os.environ.get("SHELL", "")).name)
        if name not in SHELLS:
            parser.error(f"argument --show-completion: name the shell: {', '.join(SHELLS)}")
        sys.stdout.write(completion_path(parser.prog, name).read_text(encoding="utf-8"))
        parser.exit()


def completion_path(program: str, shell: str) -> Path:
    """Return the path of a program's completion script."""
    return Path(__file__).with_name("completions") / f"{program}.{shell}"


def add_about(parser: argparse.ArgumentParser, packages: Sequence[str] = ()) -> None:
    """Add the options about the program itself; ``packages`` are those it uses in addition to the runtime's."""
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, const=packages, help="print the versions of what is installed"
    )
    parser.add_argument(
        "--show-completion",
        action=ShowCompletion,
        nargs="?",
        choices=SHELLS,
        help="print a completion script for a shell to source (default: for the running shell)",
    )


def add_volume(
    parser: argparse._ActionsContainer, details: str = "", quiet: str = "print the result and errors alone"
) -> None:
    """Add ``-q``, whose effect is ``quiet``, and ``-v``, which reports ``details`` on standard error."""
    verbose = f"also report on standard error {details}" if details else "accepted for uniformity; reports nothing more"
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help=quiet)
    volume.add_argument("-v", "--verbose", action="store_true", help=verbose)


def add_power(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where the figures of this device's power come from, if no sensor has them."""
    parser.add_argument(
        "--meter", metavar="CMD", help="read the power from this command, which prints watts (default: from a sensor)"
    )
    parser.add_argument(
        "--watts", metavar="IDLE,BUSY", help="estimate energy from this device's power, if nothing measures it, e.g. 1.4,3.7"
    )


def add_choice(parser: argparse.ArgumentParser, option: str, choices: Sequence[str], default: str, purpose: str) -> None:
    """Add an option that takes one of some words."""
    parser.add_argument(option, choices=choices, default=default, help=purpose)


def count(text: str) -> int:
    """Parse a whole number, 1 or more."""
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return number


def counts(text: str) -> tuple[int, ...]:
    """Parse whole numbers, such as ``1,2,4``, of which none comes twice."""
    numbers = tuple(count(part) for part in text.split(",")[:65])
    if len(set(numbers)) < len(numbers) or len(numbers) > 64:
        raise argparse.ArgumentTypeError("must be at most 64 whole numbers, each once")
    return numbers


def duration(text: str) -> float:
    """Parse ``80ms`` or ``0.5s`` into seconds, above 0."""
    return _quantity(text, {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}, "a time such as 80ms or 0.5s")


def energy(text: str) -> float:
    """Parse ``0.5J`` or ``300mJ`` into joules, above 0."""
    return _quantity(text, {"uJ": 1e-6, "mJ": 1e-3, "J": 1.0, "": 1.0}, "an energy such as 0.5J or 300mJ")


def _quantity(text: str, units: Mapping[str, float], what: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([A-Za-z]*)", text)
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"must be {what}, more than 0")
    return float(match[1]) * units[match[2]]


def size(text: str) -> int:
    """Parse ``700MB`` or ``1GiB`` into bytes."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMG]I?)?B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError("must be a size such as 700MB or 1GiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2] or ""])
