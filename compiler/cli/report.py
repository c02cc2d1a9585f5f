"""``hypsc report`` and ``hypsc plot``: what a model or a bundle is made of, as a page and as pictures."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.bundle_writer.model_report import read_whole
from hyps.compiler.cli import options
from hyps.compiler.cli.reporter import Console
from hyps.compiler.errors import OptionError
from hyps.compiler.report.bundle_facts import bundle_facts
from hyps.compiler.report.facts import Facts
from hyps.compiler.report.model_facts import model_facts
from hyps.compiler.report.run_profile import Measurements, read_profile
from hyps.runtime.bundle.integrity import read_manifest


class PlotFormat(StrEnum):
    """As what plots are written."""

    svg = "svg"
    png = "png"


_Source = Annotated[Path, typer.Argument(metavar="DIR|MODEL", help="A bundle's folder, or an .onnx file.")]
_Profile = Annotated[Path | None, typer.Option(metavar="FILE", help="What a run measured of each step (JSON), to compare.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def report_command(
    source: _Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")] = Path("report.html"),
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    custom_ops: options.CustomOps = None,
    profile: _Profile = None,
    force: _Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a page of DIR or MODEL: memory, split points, graph, partitions. It opens without a network."""
    telling = Console(quiet=quiet, verbose=verbose)
    drawing = _needs_matplotlib("hyps.compiler.report.html")
    check_file(output, force=force)
    with telling.progress("planning", None):
        facts = _facts(source, target, memory, threads, input_shape, custom_ops)
    with telling.progress("drawing", None):
        content: bytes = drawing.page(facts, _measured(profile, facts))
    write_files(output.parent, {output.name: content})


def plot_command(
    source: _Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder for them; made if absent.")],
    file_format: Annotated[PlotFormat, typer.Option("--format", help="As what.")] = PlotFormat.svg,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.Threads = None,
    input_shape: options.InputShape = None,
    custom_ops: options.CustomOps = None,
    profile: _Profile = None,
    force: _Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write the report's plots of DIR or MODEL as files: memory, layers and, with --profile, measured."""
    telling = Console(quiet=quiet, verbose=verbose)
    drawing = _needs_matplotlib("hyps.compiler.report.plots")
    _check_folder(output)
    with telling.progress("planning", None):
        facts = _facts(source, target, memory, threads, input_shape, custom_ops)
    with telling.progress("drawing", None):
        drawn = drawing.plots(facts, _measured(profile, facts))
        names = {name: f"{name}.{file_format.value}" for name in drawn}
        for name in names.values() if output.exists() else ():
            check_file(output / name, force=force)
        contents = {names[name]: draw(drawing.Style(), file_format.value) for name, draw in drawn.items()}
    write_files(output, contents)


def _needs_matplotlib(module: str) -> ModuleType:
    """A module that draws. Raises `OptionError` where matplotlib, which is an extra, is absent."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise OptionError("drawing needs matplotlib, which is not installed: pip install 'hyps[report]'") from None


def _check_folder(path: Path) -> None:
    """Raise `OptionError` unless ``path`` is a folder or can be made one."""
    if path.exists() and not path.is_dir():
        raise OptionError(f"{path} is no folder; name a folder with -o")
    if not path.parent.is_dir():
        raise OptionError(f"the folder {path.parent} does not exist; create it, or name another with -o")


def _facts(
    source: Path,
    target: str | None,
    memory: str | None,
    threads: int | None,
    input_shape: list[str] | None,
    custom_ops: Path | None,
) -> Facts:
    if not source.is_dir():
        return model_facts(options.planning(source, target, memory, threads, input_shape, custom_ops))
    given = {
        "--target": target,
        "--memory": memory,
        "--threads": threads,
        "--input-shape": input_shape,
        "--custom-ops": custom_ops,
    }
    if wrong := [name for name, value in given.items() if value]:
        raise OptionError(f"{wrong[0]} is for models: the bundle {source} is planned already")
    return bundle_facts(read_manifest(source), read_whole(source))


def _measured(profile: Path | None, facts: Facts) -> Measurements | None:
    if profile is None:
        return None
    if not facts.steps:
        raise OptionError("--profile is of a bundle's steps: give the bundle, or say what to plan for (--memory, --target)")
    return read_profile(profile, [step.name for step in facts.steps])
