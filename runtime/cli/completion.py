"""Completion scripts for shells, written from a command's parser: completing then starts no Python.

The ways in which shells want it: bash(1) "Programmable Completion", zshcompsys(1) ``_arguments``, fish's ``complete``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

Values = Literal["flag", "file", "folder", "words", "other"]


class _Option(NamedTuple):
    """Its names, what it does, and what comes behind it."""

    names: tuple[str, ...]
    help: str
    values: Values
    words: tuple[str, ...]
    metavar: str


def script(
    shell: str, program: str, parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]
) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``; ``commands`` are the program's own, by their parsers."""
    options = {"": _options(parser), **{name: _options(each) for name, each in commands.items()}}
    if "serve" in options:  # what the program does where no command is named
        options[""] += [option for option in options["serve"] if option not in options[""]]
    write = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "\n".join(write(program, options)) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[_Option]:
    return [_option(action) for action in parser._actions if action.option_strings]


def _option(action: argparse.Action) -> _Option:
    words = tuple(map(str, action.choices or ()))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    values: Values = "other"
    if action.nargs == 0:
        values = "flag"
    elif words:
        values = "words"
    elif action.type is Path:
        values = "folder" if metavar == "DIR" else "file"
    return _Option(tuple(action.option_strings), (action.help or "").replace("%%", "%"), values, words, metavar)


def _bash(program: str, options: Mapping[str, list[_Option]]) -> Iterator[str]:
    function = "_" + re.sub(r"\W", "_", program)
    names = [name for name in options if name]
    yield f"{function}() {{"
    yield '    local IFS=$\'\\n\' cur="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}"'
    yield '    local prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield "    COMPREPLY=()"
    known = "|".join(names) or _quoted("")
    yield f'    case "$command" in {known}) [ "$COMP_CWORD" -gt 1 ] || command= ;; *) command= ;; esac'
    yield '    case "$command $prev" in'
    for name, own in options.items():
        for option in own:
            if option.values != "flag":
                flags = "|".join(_quoted(f"{name} {flag}") for flag in option.names)
                yield f"        {flags}) {_bash_values(option)}; return ;;"
    yield "    esac"
    yield '    case "$command $cur" in'
    for name, own in options.items():
        yield f"        {_quoted(f'{name} -')}*) {_bash_words(flag for option in own for flag in option.names)}; return ;;"
    yield "    esac"
    yield f'    [ "$COMP_CWORD" -ne 1 ] || {{ {_bash_words(names, more="-d ")}; compopt -o filenames; }}'
    yield "}"
    yield f"complete -o default -F {function} {program}"


def _bash_values(option: _Option) -> str:
    if option.values == "words":
        return _bash_words(option.words)
    if option.values == "folder":
        return 'COMPREPLY=($(compgen -d -- "$cur")); compopt -o filenames'
    return ":" if option.values == "file" else "compopt +o default"


def _bash_words(words: Iterable[str], more: str = "") -> str:
    listed = "\\n".join(words)
    return f"COMPREPLY=($(compgen {more}-W $'{listed}' -- \"$cur\"))"


def _zsh(program: str, options: Mapping[str, list[_Option]]) -> Iterator[str]:
    function = "_" + re.sub(r"\W", "_", program)
    names = [name for name in options if name]
    yield f"#compdef {program}"
    yield f"{function}() {{"
    yield "    local command="
    yield f"    if (( CURRENT > 2 )) && [[ $words[2] == ({'|'.join(names)}) ]]; then"
    yield "        command=$words[2]; shift words; (( CURRENT-- ))"
    yield "    elif (( CURRENT == 2 )) && [[ $PREFIX != -* ]]; then"
    yield f"        compadd -- {' '.join(names)}"
    yield "    fi"
    yield "    case $command in"
    for name, own in options.items():
        specs = (_quoted(spec) for option in own for spec in _zsh_specs(option))
        yield f"        {name or _quoted(name)}) _arguments {' '.join(specs)} '*:file:_files' ;;"
    yield "    esac"
    yield "}"
    yield f'if [ "$funcstack[1]" = "{function}" ]; then {function} "$@"; else compdef {function} {program}; fi'


def _zsh_specs(option: _Option) -> Iterator[str]:
    text = re.sub(r"([\[\]:\\])", r"\\\1", option.help)
    action = {"file": "_files", "folder": "_files -/", "words": f"({' '.join(option.words)})"}.get(option.values, " ")
    behind = "" if option.values == "flag" else f":{option.metavar or 'value'}:{action}"
    others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
    for flag in option.names:
        yield f"{others}{flag}[{text}]{behind}"


def _fish(program: str, options: Mapping[str, list[_Option]]) -> Iterator[str]:
    names = " ".join(name for name in options if name)
    if names:
        yield f"complete -c {program} -n __fish_use_subcommand -a {_quoted(names)}"
    for name, own in options.items():
        where = f"__fish_seen_subcommand_from {name}" if name else f"not __fish_seen_subcommand_from {names or '-'}"
        for option in own:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.names)
            words = _quoted(" ".join(option.words))
            behind = {"flag": "", "file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'", "other": " -x"}
            values = behind.get(option.values, f" -x -a {words}")
            yield f"complete -c {program} -n {_quoted(where)} {flags} -d {_quoted(option.help)}{values}"


def _quoted(text: str) -> str:
    """For each of the shells."""
    return "'" + text.replace("'", "'\\''") + "'"
