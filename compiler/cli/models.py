"""``hypsc models``: list the reference networks, and build one as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.errors import OptionError
from hyps.models.catalogue import NETWORKS, ONE_FILE_BYTES, build
from hyps.models.writer import data_path
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=options.completion(lambda: NETWORKS),
        help="A network's name, from 'hypsc models list'.",
    ),
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", rich_help_panel=options.OUTPUT, help="The .onnx file to write.")
]
_ExternalData = Annotated[
    bool, typer.Option("--external-data", rich_help_panel=options.OUTPUT, help="Write the weights to a second file.")
]
_Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the weights.")]


def models_list(
    quiet: options.QuietOption = False, verbose: options.VerboseOption = False, json: options.JsonOption = False
) -> None:
    """List the reference networks."""
    console = Console(quiet=quiet, verbose=verbose)
    networks = NETWORKS.values()
    if json:
        fields = ("name", "description", "parameters", "weights_bytes", "input_shape", "preprocess", "trained")
        print_json([{field: getattr(network, field) for field in fields} for network in networks])
        return
    console.explain(
        f"{network.name}: input {network.input_name} {network.input_dtype}{list(network.input_shape)}"
        for network in networks
    )
    figures = (Column("parameters", numeric=True), Column("weights", numeric=True))
    rows = (
        [
            network.name,
            f"{network.parameters:,}",
            megabytes(network.weights_bytes),
            "trained" if network.trained else "seeded",
            network.description,
        ]
        for network in networks
    )
    show(table((Column("name"), *figures, Column("values"), Column("source")), rows))


def models_build(
    name: _Name,
    output: _Output,
    external_data: _ExternalData = False,
    seed: _Seed = 0,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Write a reference network as an ONNX file."""
    console = Console(quiet=quiet, verbose=verbose)
    network = NETWORKS.get(name)
    total = network.weights_bytes if network and network.compose else None
    try:
        with console.progress("building", total) as advance:
            build(name, output, external_data=external_data, seed=seed, advance=advance)
    except OSError as error:
        raise OptionError(f"cannot write {output}: {error.strerror or error}; name another file with -o") from None
    has_data_file = external_data or NETWORKS[name].weights_bytes > ONE_FILE_BYTES
    console.wrote(output, *([data_path(output)] if has_data_file else []))
