"""``hypsc``: compile a model into a bundle; look at bundles, targets and reference networks."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from onnx_graphsurgeon.logger import G_LOGGER

from hyps.compiler import choices, options, report
from hyps.compiler.analyze_cli import analyze
from hyps.compiler.choices import METHOD_OF, ShardPolicy, SplitChoice, TileChoice
from hyps.compiler.errors import CompilerError, OptionError
from hyps.compiler.listings import Json, models_app, targets_app
from hyps.compiler.page_cli import plot_command, report_command
from hyps.compiler.pipeline import Compilation, compile_model
from hyps.compiler.preprocessing import PRESETS
from hyps.compiler.targets import load_target
from hyps.models.errors import ModelError
from hyps.passes.errors import PassError
from hyps.passes.request import Request
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.integrity import check_files, read_manifest
from hyps.runtime.versions import RUNTIME, version_lines

app = typer.Typer(
    name="hypsc",
    help="Compile an ONNX model into a bundle that runs within a device's memory.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("analyze")(analyze)
app.command("report")(report_command)
app.command("plot")(plot_command)
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


@app.command("compile")
def compile_command(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder.")] = Path("bundle"),
    target: options.Target = None,
    memory: options.Memory = None,
    split: Annotated[SplitChoice, typer.Option(help="Where to cut.")] = SplitChoice.auto,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            help="Split an operator: NAME=METHOD:N, METHOD of output, input, channel, filter, spatial; repeatable."
        ),
    ] = None,
    shard_policy: Annotated[
        ShardPolicy, typer.Option(help="The method by which operators that are too big are split.")
    ] = ShardPolicy.auto,
    tile: Annotated[TileChoice, typer.Option(help="Compute in tiles of rows where activations need it.")] = TileChoice.auto,
    max_params: Annotated[
        int | None, typer.Option(min=1, help="Split operators with this many parameters or more (Kaboubi's threshold).")
    ] = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    preprocess: Annotated[
        str | None, typer.Option(help=f"How photographs become the input: {', '.join(PRESETS)}, or a TOML file.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, line k for class k.")] = None,
    custom_ops: options.CustomOps = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    json: Json = False,
) -> None:
    """Compile MODEL into a bundle for a device (--target), a budget (--memory), or both."""
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
    compiled = compile_model(job, report.progress)
    if json:
        report.print_json(report.compiled_data(compiled, str(output)))
    else:
        report.print_compiled(compiled, str(output))


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")],
    json: Json = False,
) -> None:
    """Print what a bundle holds, and check that its files are whole."""
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    if json:
        report.print_json(manifest)
    else:
        report.print_manifest(manifest)


@app.command("validate")
def validate_command(
    model: Annotated[Path, typer.Argument(help="The whole model.")],
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle made of it.")],
    inputs: Annotated[Path | None, typer.Option(help="Compare on the tensors of a .npz or .npy file.")] = None,
    images: Annotated[Path | None, typer.Option(help="Compare on the photographs of a folder.")] = None,
    random: Annotated[int | None, typer.Option(min=1, help="Compare on N seeded random inputs (default: 3).")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Allowed difference over the largest output (default: the bundle's promise)."),
    ] = None,
    custom_ops: options.CustomOps = None,
    json: Json = False,
) -> None:
    """Run the whole model and the bundle on the same inputs and compare; exit code 1 beyond the tolerance."""
    from hyps.compiler.validate import file_inputs, random_inputs, validate  # onnxruntime, which compiling does not need

    if sum(choice is not None for choice in (inputs, images, random)) > 1:
        raise OptionError("--inputs, --images and --random exclude each other; give one")
    manifest = read_manifest(bundle)
    path = inputs or images
    samples = file_inputs(manifest, path) if path else random_inputs(manifest, random or 3)
    with report.progress("comparing", None):
        validation = validate(model, bundle, samples, tolerance, custom_ops)
    if json:
        report.print_json(msgspec.to_builtins(validation) | {"passed": validation.passed})
    else:
        report.print_validation(validation)
    if not validation.passed:
        raise typer.Exit(1)


#: The base of the errors that typer itself raises for wrong options; its module is private.
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hypsc``; exits with 0, 1 (validation failed), 2 after one line on stderr, or 130 on ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that nothing is left
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported
    gc.freeze()  # what was imported stays: looking through it for garbage would cost a tenth of the start-up
    G_LOGGER.severity = G_LOGGER.CRITICAL  # graphsurgeon would warn on standard output
    try:
        status = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status or 0)
    except (CompilerError, PassError, RuntimeFault, ModelError) as error:
        sys.exit(_say(str(error)))
    except _UsageError as error:
        message: str = error.format_message()  # type: ignore[attr-defined]
        if "\n" in message:  # a group without a command: its help
            sys.stderr.write(f"{message}\n")
            sys.exit(2)
        sys.exit(_say(f"{message} (see 'hypsc --help')"))
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _say(message: str) -> int:
    """One line, whatever names a file holds: line ends and terminal codes are spelt out."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in message)
    sys.stderr.write(f"hypsc: {line}\n")
    return 2
