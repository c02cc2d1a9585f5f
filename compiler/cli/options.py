"""Options that several commands have, and what those that plan a model make of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from hyps.compiler.cli import choices
from hyps.compiler.pipeline import Compilation
from hyps.compiler.targets import load_target, target_names


def completed(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell offers for a value that begins with so much; files, where there is nothing."""
    return lambda incomplete: [word for word in words() if word.startswith(incomplete)]


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The model: an .onnx file, its external data beside it.")
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completed(target_names),
        help="The device: a name from 'hypsc targets list', or a TOML file.",
    ),
]
MemoryOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="The budget of the whole process, e.g. 128MB or 122MiB.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Threads to plan for (default: the target's cores, or 4).")
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:SHAPE", help="Fix a dynamic input, e.g. name:1,3,224,224; once an input."),
]
CustomOps = Annotated[
    Path | None,
    typer.Option(metavar="LIB", help="A library (.so) with operators of the model's own, as onnxruntime loads it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone, and what is wrong.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell on standard error what is done, how long that takes, and why.")
]


def planning(
    model: Path,
    target: str | None,
    memory: str | None,
    threads: int | None,
    input_shape: list[str] | None,
    custom_ops: Path | None,
) -> Compilation:
    """What to plan, of which nothing is written. Raises `OptionError`."""
    device = load_target(target) if target else None
    return Compilation(
        model=model,
        output=Path(),
        request=choices.asked(device, choices.budget(device, memory, needless=True), threads),
        target_name=choices.target_name(device),
        input_shapes=choices.input_shapes(input_shape),
        custom_ops=custom_ops,
    )
