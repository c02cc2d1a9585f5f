"""``hypsc targets`` and ``hypsc models``: what comes with HyPS, to list, to show and to build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hyps.compiler.errors import OptionError
from hyps.compiler.report import console, print_json, progress, table
from hyps.compiler.targets import load_target, target_names, target_toml
from hyps.models.catalogue import NETWORKS, build
from hyps.passes.units import megabytes

targets_app = typer.Typer(help="The devices that hypsc knows.", no_args_is_help=True, rich_markup_mode=None)
models_app = typer.Typer(help="Reference networks to try it on.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]


@targets_app.command("list")
def targets_list(json: Json = False) -> None:
    """The built-in devices."""
    targets = [load_target(name) for name in target_names()]
    if json:
        print_json([msgspec.to_builtins(target) | {"budget_bytes": target.budget_bytes} for target in targets])
        return
    columns = [
        ("name", False),
        ("device", False),
        ("memory", True),
        ("budget", True),
        ("cores", True),
        ("storage /s", True),
    ]
    rows = [
        [
            t.name,
            t.title,
            megabytes(t.memory_bytes),
            megabytes(t.budget_bytes),
            str(t.cores),
            megabytes(t.storage_read_bytes_per_s),
        ]
        for t in targets
    ]
    console().print(table(columns, rows))


@targets_app.command("show")
def targets_show(name: Annotated[str, typer.Argument(help="A device's name, or a TOML file.")]) -> None:
    """A device's TOML file, with the source of each figure: a template for your own."""
    load_target(name)
    typer.echo(target_toml(name), nl=False)


@models_app.command("list")
def models_list(json: Json = False) -> None:
    """The reference networks."""
    networks = NETWORKS.values()
    if json:
        fields = ("name", "description", "parameters", "weights_bytes", "input_shape", "preprocess", "trained")
        print_json([{field: getattr(network, field) for field in fields} for network in networks])
        return
    columns = [("name", False), ("parameters", True), ("weights", True), ("trained", False), ("source", False)]
    rows = [
        [n.name, f"{n.parameters:,}", megabytes(n.weights_bytes), "yes" if n.trained else "no: seeded", n.description]
        for n in networks
    ]
    console().print(table(columns, rows))


@models_app.command("build")
def models_build(
    name: Annotated[str, typer.Argument(help="A network's name, from 'hypsc models list'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    external_data: Annotated[bool, typer.Option("--external-data", help="Weights in a file of their own.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 0,
) -> None:
    """Write a reference network as ONNX."""
    try:
        with progress("building", None):
            build(name, output, external_data=external_data, seed=seed)
    except OSError as error:
        raise OptionError(f"cannot write {output}: {error.strerror or error}") from None
