"""The commands of ``hypsc``: compile a model into a bundle; look at bundles, targets and reference networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from onnx_graphsurgeon.logger import G_LOGGER

from hyps.compiler.cli import choices, options
from hyps.compiler.cli import summary as report
from hyps.compiler.cli.analyze import analyze
from hyps.compiler.cli.choices import METHOD_OF, ShardPolicy, SplitChoice, TileChoice
from hyps.compiler.cli.listings import models_app, targets_app
from hyps.compiler.cli.report import plot_command, report_command
from hyps.compiler.cli.reporter import Console
from hyps.compiler.errors import CompilerError, OptionError
from hyps.compiler.pipeline import Compilation, compile_file
from hyps.compiler.preprocessing import PRESETS
from hyps.compiler.targets import load_target
from hyps.models.errors import ModelError
from hyps.passes.errors import PassError
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.terminal.versions import RUNTIME, version_lines
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.terminal.console import say
from hyps.runtime.terminal.exit import EXIT_CODES

#: What the user can mend is one of these.
MENDABLE = (CompilerError, PassError, RuntimeFault, ModelError)

app = typer.Typer(
    name="hypsc",
    help="Compile an ONNX model into a bundle that runs within a device's memory.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
app.add_typer(targets_app, name="targets")
app.add_typer(models_app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo("\n".join(version_lines("hypsc", ("onnx", "onnx-graphsurgeon", "networkx", *RUNTIME))))
        raise typer.Exit


@app.callback()
def hypsc(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print what is installed, and end.")
    ] = False,
) -> None:
    """Compile an ONNX model into a bundle that runs within a device's memory."""


def compile_command(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The bundle's folder.")] = Path("bundle"),
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    split: Annotated[SplitChoice, typer.Option(help="Where to cut.")] = SplitChoice.auto,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=METHOD:N",
            help="Split an operator: NAME=METHOD:N, METHOD of output, input, channel, filter, spatial; repeatable.",
        ),
    ] = None,
    shard_policy: Annotated[
        ShardPolicy, typer.Option(help="The method by which operators that are too big are split.")
    ] = ShardPolicy.auto,
    tile: Annotated[TileChoice, typer.Option(help="Compute in tiles of rows where activations need it.")] = TileChoice.auto,
    max_params: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Split operators with N parameters or more (Kaboubi's threshold)."),
    ] = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=options.completed(lambda: PRESETS),
            help=f"How photographs become the input: {', '.join(PRESETS)}, or a TOML file.",
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="Class names, line k for class k.")] = None,
    custom_ops: options.CustomOps = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Compile MODEL into a bundle for a device (--target), a budget (--memory), or both."""
    telling = Console(quiet=quiet, verbose=verbose)
    device = load_target(target) if target else None
    request = Request(
        max_params=max_params,
        split=split.value,
        shards=choices.shards(shard or ()),
        policy="auto" if shard_policy is ShardPolicy.auto else METHOD_OF[shard_policy.value],
        tile=tile.value,
        images=preprocess is not None,
    )
    budget_bytes = choices.budget(device, memory, needless=bool(max_params or shard))
    job = Compilation(
        model=model,
        output=output,
        request=choices.asked(device, budget_bytes, threads, request),
        target_name=choices.target_name(device),
        input_shapes=choices.input_shapes(input_shape),
        preprocess=preprocess,
        labels=labels,
        custom_ops=custom_ops,
        force=force,
    )
    compiled = compile_file(job, telling.progress)
    telling.note(*report.reasons(compiled))
    if json:
        report.print_json(report.compiled_data(compiled, str(output)))
    elif not quiet:
        report.print_compiled(compiled, str(output))


def inspect_command(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Print what a bundle holds, and check that its files are whole."""
    telling = Console(quiet=quiet, verbose=verbose)
    manifest = read_manifest(bundle)
    with telling.progress("reading every file for its sha256", None):
        check_files(bundle, manifest)
    if json:
        report.print_json(manifest)
    else:
        report.print_manifest(manifest)


def validate_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The whole model.")],
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle made of it.")],
    inputs: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare on a .npz or .npy file.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Compare on a folder of photographs.")] = None,
    random: Annotated[int | None, typer.Option(min=1, metavar="N", help="Compare on N random inputs (default: 3).")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Allowed difference over the largest output (default: the bundle's promise)."),
    ] = None,
    custom_ops: options.CustomOps = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Run the whole model and the bundle on the same inputs and compare; exit code 1 beyond the tolerance."""
    from hyps.compiler.validate import file_inputs, input_count, random_inputs, validate  # onnxruntime: compiling needs none

    telling = Console(quiet=quiet, verbose=verbose)
    if sum(choice is not None for choice in (inputs, images, random)) > 1:
        raise OptionError("--inputs, --images and --random exclude each other; give one")
    manifest = read_manifest(bundle)
    path = inputs or images
    samples = file_inputs(manifest, path) if path else random_inputs(manifest, random or 3)
    with telling.progress("comparing", input_count(path) if path else random or 3) as advance:
        validation = validate(model, bundle, samples, tolerance, custom_ops, advance)
    if json:
        report.print_json(msgspec.to_builtins(validation) | {"passed": validation.passed})
    else:
        report.print_validation(validation, quiet=quiet)
    if not validation.passed:
        raise typer.Exit(1)


app.command("compile", epilog=EXIT_CODES)(compile_command)
app.command("inspect", epilog=EXIT_CODES)(inspect_command)
app.command("validate", epilog=EXIT_CODES)(validate_command)
app.command("analyze", epilog=EXIT_CODES)(analyze)
app.command("report", epilog=EXIT_CODES)(report_command)
app.command("plot", epilog=EXIT_CODES)(plot_command)

#: The base of the errors that typer itself raises for wrong options; its module is private.
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def run_app(arguments: Sequence[str] | None) -> int:
    """Run what the command line asks for; the exit code. Raises what is `MENDABLE`."""
    G_LOGGER.severity = G_LOGGER.CRITICAL  # graphsurgeon would warn on standard output
    try:
        return app(args=arguments, standalone_mode=False) or 0
    except _UsageError as error:
        message: str = error.format_message()  # type: ignore[attr-defined]
        if "\n" in message:  # a group without a command: its help
            sys.stderr.write(f"{message}\n")
            return 2
        return say(f"{message} (see 'hypsc --help')", "hypsc")
