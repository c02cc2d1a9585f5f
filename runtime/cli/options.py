"""The command line of ``hyps-run`` and of its own commands; a wrong one is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hyps.runtime.terminal.console import say
from hyps.runtime.terminal.exit import EXIT_CODES

#: Those whose completion `ShowCompletion` writes.
SHELLS = ("bash", "zsh", "fish")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; its help ends with the exit codes."""

    def __init__(self, *, epilog: str = "", **settings: Any) -> None:
        super().__init__(epilog=f"{epilog} {EXIT_CODES}".strip(), **settings)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is."""
        self.exit(say(f"{message} (see '{self.prog} --help')", self.prog.split()[0]))

    def commands(self) -> Mapping[str, argparse.ArgumentParser]:
        """The parsers of the program's own commands, by name."""
        found = (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next(found, {})


class _RunParser(Parser):
    def commands(self) -> Mapping[str, argparse.ArgumentParser]:
        return {"calibrate": calibrate_parser(), "doctor": doctor_parser()}


class ShowVersion(argparse.Action):
    """Prints the versions of what matters (``const``: of more packages); they are looked up when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print them, and end."""
        from hyps.runtime.terminal.versions import RUNTIME, version_lines

        sys.stdout.write("\n".join(version_lines(parser.prog, (*RUNTIME, *(self.const or ())))) + "\n")
        parser.exit()


class ShowCompletion(argparse.Action):
    """Prints a script by which a shell completes the command line; it is made when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: object, *_: object) -> NoReturn:
        """Print it, and end."""
        from hyps.runtime.cli.completion import script

        wanted = str(shell or Path(os.environ.get("SHELL", "")).name)
        assert isinstance(parser, Parser)
        if wanted not in SHELLS:
            parser.error(f"argument --show-completion: name the shell: {', '.join(SHELLS)}")
        sys.stdout.write(script(wanted, parser.prog, parser, parser.commands()))
        parser.exit()


def add_about(parser: argparse.ArgumentParser, packages: Sequence[str] = ()) -> None:
    """The options that tell about the program itself; ``packages`` matter to it besides the runtime's."""
    parser.add_argument("--version", action=ShowVersion, nargs=0, const=packages, help="print what is installed, and end")
    parser.add_argument(
        "--show-completion",
        action=ShowCompletion,
        nargs="?",
        choices=SHELLS,
        help="print what completes this command line in a shell (default: this one), to be sourced, and end",
    )


def add_volume(
    parser: argparse.ArgumentParser, reasons: str, quiet: str = "print the result alone, and what is wrong"
) -> None:
    """How much is told: ``-q`` the result alone, ``-v`` the ``reasons`` besides."""
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help=quiet)
    volume.add_argument("-v", "--verbose", action="store_true", help=f"tell on standard error {reasons}")


def run_parser() -> argparse.ArgumentParser:
    """The options of ``hyps-run``."""
    parser = _RunParser(
        prog="hyps-run",
        description="Run a bundle within its memory budget.",
        epilog="'hyps-run calibrate' measures this device for hypsc, 'hyps-run doctor' tells what it lacks (each has its "
        "own --help); a bundle in a folder of such a name is ./calibrate or ./doctor.",
    )
    add_about(parser)
    parser.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder, made by 'hypsc compile'")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="an image, a .npy or .npz file, a folder of them, or - for stdin"
    )
    parser.add_argument("--top", type=count, default=5, metavar="K", help="print the K best classes (default 5)")
    parser.add_argument("--repeat", type=count, default=1, metavar="N", help="run N times, tell the median time")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="read the weights once for N inputs")
    parser.add_argument("--threads", type=count, metavar="N", help="compute with N threads (default: the cores)")
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="compute at a cluster: mqtt://HOST:PORT (see 'hyps-manager --help'), dask://HOST:PORT or dask://local",
    )
    parser.add_argument(
        "--join", type=Path, metavar="FILE", help="a join file of the cluster's hub (hyps-manager add-client)"
    )
    parser.add_argument("--custom-ops", type=Path, metavar="LIB", help="a library with operators of the model's own")
    parser.add_argument("--profile", action="store_true", help="a row per step: load, run, bytes read, resident memory")
    parser.add_argument("--profile-json", type=Path, metavar="FILE", help="the same, of the last input, for hypsc report")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="keep the raw outputs by name")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="keep the results in FILE.jsonl, or in a folder FILE.parquet; inputs whose results it has are left out",
    )
    parser.add_argument("--no-verify", action="store_true", help="do not check the files' sha256 first (sizes are)")
    add_volume(parser, "what is opened, read, kept and given back, step by step")
    return parser


def calibrate_parser() -> argparse.ArgumentParser:
    """The options of ``hyps-run calibrate``."""
    parser = Parser(
        prog="hyps-run calibrate",
        description="Measure this device, in ten to thirty seconds, and write a target file for 'hypsc compile --target'. "
        "Let nothing else run meanwhile that will not run beside the network.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("board.toml"),
        metavar="FILE.toml",
        help="the target file to write (default: board.toml)",
    )
    parser.add_argument("--name", metavar="NAME", help="the target's name (default: the file's)")
    parser.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="measure the storage that holds DIR (default: here)"
    )
    parser.add_argument(
        "--test-memory",
        action="store_true",
        help="see whether the free memory can really be had: a process takes it all for a moment, and is the first that "
        "the kernel kills if it cannot; empties the device's file cache",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    add_volume(parser, "where each figure is from")
    return parser


def doctor_parser() -> argparse.ArgumentParser:
    """The options of ``hyps-run doctor``."""
    parser = Parser(
        prog="hyps-run doctor",
        description="Tell whether this device has what hyps-run needs, how to mend what is wrong, and what fits: a line a "
        "check. Exits with 1 where something is FAIL.",
    )
    parser.add_argument(
        "bundle", nargs="?", type=Path, metavar="DIR", help="see whether this bundle fits (else: which budgets do)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="measure the storage that holds DIR (default: here)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list of check, state, found and mend")
    add_volume(parser, "how long each check took", quiet="leave out what is ok")
    return parser


def count(text: str) -> int:
    """A whole number, 1 or more."""
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return number
