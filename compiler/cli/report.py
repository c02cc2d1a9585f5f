"""``hypsc report`` and ``hypsc plot``: write a page or pictures that show a model or a bundle."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer

from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.bundle_writer.model_report import read_model_report
from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console
from hyps.compiler.errors import OptionError
from hyps.compiler.report.bundle_facts import bundle_facts
from hyps.compiler.report.facts import Facts
from hyps.compiler.report.model_facts import model_facts
from hyps.compiler.report.run_profile import Measurements, read_profile
from hyps.passes.normalize.extraction import ModelPart
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.suggestions import install

_Source = Annotated[Path, typer.Argument(metavar="DIR|MODEL", help="A bundle's folder, or an .onnx file.")]
_Profile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=options.INPUT,
        help="Compare with a run's measurements, from 'hyps-run --profile-json FILE'.",
    ),
]
_Page = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", rich_help_panel=options.OUTPUT, help="The page to write.")
]
_Folder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", rich_help_panel=options.OUTPUT, help="The folder to write to; created if absent."
    ),
]
_Format = Annotated[
    Literal["svg", "png"], typer.Option("--format", rich_help_panel=options.OUTPUT, help="The plots' file format.")
]


def report_command(
    source: _Source,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.ThreadsOption = None,
    input_shape: options.ShapeOption = None,
    from_: options.FromOption = None,
    until: options.UntilOption = None,
    custom_ops: options.CustomOpsOption = None,
    profile: _Profile = None,
    output: _Page = Path("report.html"),
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Write a page about a bundle or a model.

    It shows memory, split points, the graph and the partitions, and opens without a network.
    """
    console = Console(quiet=quiet, verbose=verbose)
    html = _import_drawing("hyps.compiler.report.html")
    check_file(output, force=force)
    with console.progress("planning", None):
        facts = _facts(source, target, memory, threads, input_shape, options.model_part(from_, until), custom_ops)
    with console.progress("drawing", None):
        content: bytes = html.page(facts, _measurements(profile, facts))
    write_files(output.parent, {output.name: content})
    console.wrote(output)


def plot_command(
    source: _Source,
    output: _Folder,
    file_format: _Format = "svg",
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.ThreadsOption = None,
    input_shape: options.ShapeOption = None,
    from_: options.FromOption = None,
    until: options.UntilOption = None,
    custom_ops: options.CustomOpsOption = None,
    profile: _Profile = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Write the plots of a bundle's or a model's report as files.

    They show memory, layers and, with --profile, measurements.
    """
    console = Console(quiet=quiet, verbose=verbose)
    plotting = _import_drawing("hyps.compiler.report.plots")
    _check_folder(output)
    with console.progress("planning", None):
        facts = _facts(source, target, memory, threads, input_shape, options.model_part(from_, until), custom_ops)
    with console.progress("drawing", None):
        plots = plotting.plots(facts, _measurements(profile, facts))
        names = {name: f"{name}.{file_format}" for name in plots}
        for name in names.values() if output.exists() else ():
            check_file(output / name, force=force)
        contents = {names[name]: draw(plotting.Style(), file_format) for name, draw in plots.items()}
    write_files(output, contents)
    console.wrote(*(output / name for name in contents))


def _import_drawing(module: str) -> ModuleType:
    """Import a module that draws; raise `OptionError` if matplotlib, which is an extra, is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise OptionError(f"drawing needs matplotlib, which is not installed; {install('report')}") from None


def _check_folder(path: Path) -> None:
    """Raise `OptionError` unless ``path`` is a folder or can be created as one."""
    if path.exists() and not path.is_dir():
        raise OptionError(f"{path} is not a folder; name a folder with -o")
    if not path.parent.is_dir():
        raise OptionError(f"the folder {path.parent} does not exist; create it, or name another with -o")


def _facts(
    source: Path,
    target: str | None,
    memory_bytes: int | None,
    threads: int | None,
    shapes: list[options.FixedShape] | None,
    part: ModelPart,
    custom_ops: Path | None,
) -> Facts:
    if not source.is_dir():
        return model_facts(options.planning_job(source, target, memory_bytes, threads, shapes, part, custom_ops))
    given = {
        "--target": target,
        "--memory": memory_bytes,
        "--threads": threads,
        "--input-shape": shapes,
        "--from": part.begin,
        "--until": part.until,
        "--custom-ops": custom_ops,
    }
    if wrong := [name for name, value in given.items() if value]:
        raise OptionError(f"{wrong[0]} is for models, and the bundle {source} is already planned; leave it out")
    return bundle_facts(read_manifest(source), read_model_report(source))


def _measurements(profile: Path | None, facts: Facts) -> Measurements | None:
    if profile is None:
        return None
    if not facts.steps:
        raise OptionError(
            "--profile compares the steps of a bundle; name the bundle, or what to plan for with --memory or --target"
        )
    return read_profile(profile, [step.name for step in facts.steps])
