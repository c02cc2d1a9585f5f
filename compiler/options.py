"""Options that several commands have, and what those that plan a model make of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyps.compiler import choices
from hyps.compiler.pipeline import Compilation
from hyps.compiler.targets import load_target

Model = Annotated[Path, typer.Argument(help="The model: an .onnx file, its external data beside it.")]
Target = Annotated[str | None, typer.Option(help="The device: a name from 'hypsc targets list', or a TOML file.")]
Memory = Annotated[str | None, typer.Option(help="The budget of the whole process, e.g. 128MB or 122MiB.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to plan for (default: the target's cores, or 4).")]
InputShape = Annotated[list[str] | None, typer.Option(help="Fix a dynamic input, e.g. name:1,3,224,224; once an input.")]
CustomOps = Annotated[
    Path | None, typer.Option(help="A library (.so) with operators of the model's own, as onnxruntime loads it.")
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
