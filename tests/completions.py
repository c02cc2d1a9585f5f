"""Generate the shells' completion scripts that the device's commands ship, with shtab.

``python -m tests.completions`` writes them anew; a test compares them with the parsers. They are static files because a
device does not have shtab. shtab does not support a first word that is either a command or an argument of a default command.
``hyps-run`` (DIR or ``doctor``) and ``hyps-manager`` (DIR or ``status``) need that, hence the changes below.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import shtab

from hyps.runtime.cli.options import calibrate_parser, doctor_parser, profile_parser, run_parser, tune_parser
from hyps.runtime.cluster.cli.manager import manager_parser
from hyps.runtime.cluster.cli.worker import worker_parser
from hyps.runtime.terminal.parser import SHELLS, completion_path

#: A function of bash that completes a folder or one of the commands.
_START = '_hyps_start() {{ compgen -d -- "$1"; compgen -W "{commands}" -- "$1"; }}'


def scripts() -> Iterator[tuple[Path, str]]:
    """Yield each script's path and text."""
    for program, parser in PROGRAMS.items():
        for shell in SHELLS:
            yield completion_path(program, shell), _script(parser(), shell)


def _run() -> argparse.ArgumentParser:
    """Return the parser of ``hyps-run`` with its commands."""
    parser = run_parser()
    commands = parser.add_subparsers()
    for each in (tune_parser(), profile_parser(), calibrate_parser(), doctor_parser()):
        name = each.prog.split()[1]
        commands.add_parser(name, help=name, parents=(each,), add_help=False)
    return parser


def _manager() -> argparse.ArgumentParser:
    """Return the parser of ``hyps-manager`` with the options of its default command."""
    parser = manager_parser()
    for action in _commands(parser)["serve"]._actions:
        if action.option_strings and not set(action.option_strings) & set(parser._option_string_actions):
            parser._add_action(action)
    return parser


PROGRAMS: Mapping[str, Callable[[], argparse.ArgumentParser]] = {
    "hyps-run": _run,
    "hyps-manager": _manager,
    "hyps-worker": worker_parser,
}


def _script(parser: argparse.ArgumentParser, shell: str) -> str:
    commands = _commands(parser)
    for each in (parser, *commands.values()):
        _complete_paths(each)
    positionals = [action for action in parser._get_positional_actions() if action.type is Path]
    if positionals and commands:
        words = " ".join(commands)
        fish = f"(__fish_complete_directories; printf '%s\\n' {words})"
        positionals[0].complete = {"bash": "_hyps_start", "fish": fish}  # type: ignore[attr-defined]
    if shell == "zsh" and commands:  # the commands' specification, below, takes the place of the positional arguments
        parser._actions[:] = [
            action for action in parser._actions if action.option_strings or isinstance(action, argparse._SubParsersAction)
        ]
    preamble = _START.format(commands=" ".join(commands)) if shell == "bash" and positionals and commands else ""
    text = shtab.complete(parser, shell, preamble=preamble)
    if shell == "zsh":
        text = _for_default_command(text, parser.prog) if commands else text
        text = text.replace("[-1] == eval ]]", "[-1] == (eval|file) ]]")  # sourced, which shtab does not expect
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _for_default_command(text: str, program: str) -> str:
    """Offer folders next to the commands, and the program's own options after a folder."""
    options = f"${{(M)_shtab_{program.replace('-', '_')}_options:#*\\[*}}"  # those with a [help text]
    listing = f"_describe '{program} commands' _commands"
    assert listing in text
    text = text.replace(listing, f"{listing}\n  _files -/")
    before, _, rest = text.rpartition("      esac\n")
    return f"{before}        *) _arguments -C -s {options} '*:input:_files' ;;\n      esac\n{rest}"


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of a program's commands by name."""
    choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(choices, {})


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Have shtab complete folders for options whose value is a DIR, files for other paths."""
    for action in parser._actions:
        if action.type is Path or action.metavar == "INPUT":
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]


if __name__ == "__main__":
    for path, text in scripts():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
