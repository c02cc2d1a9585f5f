"""Define the arguments and options that several commands of ``hypsc`` share, and parse their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from hyps.compiler.jobs import PlanningJob
from hyps.compiler.requests import resolve_request, target_name
from hyps.compiler.sizes import parse_size
from hyps.compiler.target_files import target_names
from hyps.passes.normalize.extraction import ModelPart
from hyps.passes.planning.request import Request
from hyps.runtime.library_memory import Interface, measured_versions

#: The headings of a command's ``--help``.
TARGET, SPLITTING, INPUT, OUTPUT = "Target", "Splitting", "Input", "Output"


class FixedShape(NamedTuple):
    """The shape of one input, as ``--input-shape`` gives it."""

    name: str
    sizes: tuple[int, ...]


def completion(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that offers the ``words`` that start with what was typed."""
    return lambda incomplete: [word for word in words() if word.startswith(incomplete)]


def parse_size_option(text: str) -> int:
    """Parse an option's size, such as ``128MB``."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _fixed_shape(text: str) -> FixedShape:
    """Parse ``name:1,3,224,224``."""
    name, colon, shape = text.rpartition(":")
    try:
        sizes = tuple(int(size) for size in shape.split(",")) if shape else ()
    except ValueError:
        sizes = (-1,)
    if not colon or not name or min(sizes, default=0) < 0:
        raise typer.BadParameter(f"{text!r} is not of the form NAME:SHAPE; write e.g. image:1,3,224,224")
    return FixedShape(name, sizes)


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The .onnx file; its external data stays in the same folder.")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion(target_names),
        rich_help_panel=TARGET,
        help="The device: a name from 'hypsc targets list', or a TOML file.",
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=parse_size_option,
        rich_help_panel=TARGET,
        help="The budget: memory of the whole process, e.g. 128MB or 122MiB (default: all that the target has for one).",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", rich_help_panel=TARGET, help="Threads to plan for (default: the target's cores, or 4)."
    ),
]
InterfaceOption = Annotated[
    Interface,
    typer.Option(
        rich_help_panel=TARGET,
        help="How the device calls onnxruntime: 'c' takes less memory, and is for hyps-run on pictures alone.",
    ),
]
OnnxruntimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        rich_help_panel=TARGET,
        help="The device's onnxruntime, e.g. 1.31 (default: the calibrated target's, or the one that takes most memory of "
        f"{measured_versions()}). Older versions take less memory.",
    ),
]
ShapeOption = Annotated[
    list[FixedShape] | None,
    typer.Option(
        metavar="NAME:SHAPE",
        parser=_fixed_shape,
        rich_help_panel=INPUT,
        help="Fix the shape of a dynamic input, e.g. image:1,3,224,224; repeat it for further inputs.",
    ),
]
CustomOpsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="LIB", rich_help_panel=INPUT, help="A library (.so) with the model's custom operators, for onnxruntime."
    ),
]
FromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="TENSOR",
        rich_help_panel=INPUT,
        help="Leave out what computes this tensor; it becomes an input. Repeatable.",
    ),
]
UntilOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TENSOR",
        rich_help_panel=INPUT,
        help="Stop at this tensor, which becomes an output; leave out what only other tensors need. Repeatable.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Replace what exists there.")]
StepsOption = Annotated[bool, typer.Option("--steps", rich_help_panel=OUTPUT, help="List every step, not groups of steps.")]
JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the result as JSON.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Print only the result's essentials, and errors.")
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", rich_help_panel=OUTPUT, help="Explain on standard error what is done, why, and how long it takes."
    ),
]


def shapes_by_name(shapes: Iterable[FixedShape] | None) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes that ``--input-shape`` gives, by input."""
    return {shape.name: shape.sizes for shape in shapes or ()}


def model_part(begin: Iterable[str] | None, until: Iterable[str] | None) -> ModelPart:
    """Return the part that ``--from`` and ``--until`` name."""
    return ModelPart(begin=tuple(begin or ()), until=tuple(until or ()))


def planning_job(
    model: Path,
    target: str | None,
    memory_bytes: int | None,
    threads: int | None,
    shapes: Iterable[FixedShape] | None,
    part: ModelPart,
    custom_ops: Path | None,
    onnxruntime: str | None = None,
    interface: Interface = "python",
) -> PlanningJob:
    """Return the planning job of a command that writes no bundle.

    Raises `hyps.compiler.errors.TargetError` and `hyps.compiler.errors.OptionError`.
    """
    request, profile = resolve_request(
        Request(images=interface == "c"),
        target=target,
        memory_bytes=memory_bytes,
        threads=threads,
        onnxruntime=onnxruntime,
        interface=interface,
    )
    return PlanningJob(
        model=model,
        request=request,
        target_name=target_name(profile),
        input_shapes=shapes_by_name(shapes),
        part=part,
        custom_ops=custom_ops,
    )
