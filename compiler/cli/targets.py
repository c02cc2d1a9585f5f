"""``hypsc targets``: list the built-in devices, and show the file of one."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.target_files import load_target, target_names, target_toml
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

_Name = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=options.completion(target_names), help="A device's name, or a TOML file."),
]


def targets_list(
    quiet: options.QuietOption = False, verbose: options.VerboseOption = False, json: options.JsonOption = False
) -> None:
    """List the built-in devices."""
    console = Console(quiet=quiet, verbose=verbose)
    targets = [load_target(name) for name in target_names()]
    if json:
        print_json([msgspec.to_builtins(target) | {"budget_bytes": target.budget_bytes} for target in targets])
        return
    console.explain(
        f"{target.name}: {figure}: {source}"
        for target in targets
        for figure, source in msgspec.to_builtins(target.sources).items()
    )
    figures = ("memory", "budget", "cores", "storage")
    columns = [Column("name"), Column("device"), *(Column(figure, numeric=True) for figure in figures)]
    rows = (
        [
            target.name,
            target.title,
            megabytes(target.memory_bytes),
            megabytes(target.budget_bytes),
            str(target.cores),
            f"{megabytes(target.storage_read_bytes_per_s)}/s",
        ]
        for target in targets
    )
    show(table(columns, rows))


def targets_show(name: _Name, quiet: options.QuietOption = False, verbose: options.VerboseOption = False) -> None:
    """Print a device's TOML file, with the source of each figure; it is a template for your own."""
    console = Console(quiet=quiet, verbose=verbose)
    target = load_target(name)
    console.explain([f"one process may hold {megabytes(target.budget_bytes)}: the memory less what is reserved"])
    show([target_toml(name).removesuffix("\n")])
