"""``hypsc targets`` and ``hypsc models``: what comes with HyPS, to list, to show and to build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hyps.compiler.cli.options import Json, Quiet, Verbose, completed
from hyps.compiler.cli.reporter import Console
from hyps.compiler.cli.summary import print_json
from hyps.compiler.errors import OptionError
from hyps.compiler.targets import load_target, target_names, target_toml
from hyps.models.catalogue import NETWORKS, build
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.exit import EXIT_CODES
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

targets_app = typer.Typer(help="The devices that hypsc knows.", no_args_is_help=True, epilog=EXIT_CODES)
models_app = typer.Typer(help="Reference networks to try it on.", no_args_is_help=True, epilog=EXIT_CODES)


@targets_app.command("list", epilog=EXIT_CODES)
def targets_list(quiet: Quiet = False, verbose: Verbose = False, json: Json = False) -> None:
    """The built-in devices."""
    telling = Console(quiet=quiet, verbose=verbose)
    targets = [load_target(name) for name in target_names()]
    if json:
        print_json([msgspec.to_builtins(target) | {"budget_bytes": target.budget_bytes} for target in targets])
        return
    columns = [
        Column("name"),
        Column("device"),
        *(Column(figure, numeric=True) for figure in ("memory", "budget", "cores", "storage")),
    ]
    rows = [
        [
            t.name,
            t.title,
            megabytes(t.memory_bytes),
            megabytes(t.budget_bytes),
            str(t.cores),
            f"{megabytes(t.storage_read_bytes_per_s)}/s",
        ]
        for t in targets
    ]
    telling.note(
        *(f"{t.name}: {figure}: {source}" for t in targets for figure, source in msgspec.to_builtins(t.sources).items())
    )
    show(table(columns, rows))


@targets_app.command("show", epilog=EXIT_CODES)
def targets_show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", autocompletion=completed(target_names), help="A device's name, or a TOML file."),
    ],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """A device's TOML file, with the source of each figure: a template for your own."""
    telling = Console(quiet=quiet, verbose=verbose)
    target = load_target(name)
    telling.note(f"a process may hold {megabytes(target.budget_bytes)}: the memory less what is reserved")
    show([target_toml(name).removesuffix("\n")])


@models_app.command("list", epilog=EXIT_CODES)
def models_list(quiet: Quiet = False, verbose: Verbose = False, json: Json = False) -> None:
    """The reference networks."""
    telling = Console(quiet=quiet, verbose=verbose)
    networks = NETWORKS.values()
    if json:
        fields = ("name", "description", "parameters", "weights_bytes", "input_shape", "preprocess", "trained")
        print_json([{field: getattr(network, field) for field in fields} for network in networks])
        return
    figures = (Column("parameters", numeric=True), Column("weights", numeric=True))
    rows = [
        [n.name, f"{n.parameters:,}", megabytes(n.weights_bytes), "trained" if n.trained else "seeded", n.description]
        for n in networks
    ]
    telling.note(*(f"{n.name}: {n.input_name} {n.input_dtype}{list(n.input_shape)}" for n in networks))
    show(table((Column("name"), *figures, Column("values"), Column("source")), rows))


@models_app.command("build", epilog=EXIT_CODES)
def models_build(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=completed(lambda: NETWORKS), help="A network's name, from 'hypsc models list'."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .onnx file to write.")],
    external_data: Annotated[bool, typer.Option("--external-data", help="Weights in a file of their own.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the weights.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a reference network as ONNX."""
    telling = Console(quiet=quiet, verbose=verbose)
    network = NETWORKS.get(name)
    total = network.weights_bytes if network and network.compose else None
    try:
        with telling.progress("building", total) as advance:
            build(name, output, external_data=external_data, seed=seed, advance=advance)
    except OSError as error:
        raise OptionError(f"cannot write {output}: {error.strerror or error}") from None
