"""``hypsc compile``: compile a model into a bundle, and print the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.cli.verdict import compilation_summary, explanations, summary_data
from hyps.compiler.errors import OptionError
from hyps.compiler.pipeline import Compilation, compile_file
from hyps.compiler.preprocessing import PRESETS
from hyps.compiler.requests import resolve_request, target_name
from hyps.passes.planning.request import CutMode, Request, RequestedShard, Tile
from hyps.passes.sharding.layouts import METHODS, Method
from hyps.runtime.terminal.console import show

#: The methods by which operators are split, in Hadidi's words: those of products and those of convolutions.
ShardPolicy = Literal["auto", "output", "channel", "input", "filter", "spatial"]
_METHOD_OF: Mapping[str, Method] = {method: method for method in METHODS} | {"channel": "output", "filter": "input"}


def _asked_shards(text: str) -> RequestedShard:
    """Parse ``NAME=METHOD:N``."""
    name, _, rest = text.rpartition("=")
    method, _, number = rest.partition(":")
    count = int(number) if number.isdecimal() else 0
    if not name or method not in _METHOD_OF or count < 2:
        raise typer.BadParameter(
            f"{text!r} is not of the form NAME=METHOD:N, with METHOD one of {', '.join(_METHOD_OF)}, and N from 2 on"
        )
    return RequestedShard(operator=name, method=_METHOD_OF[method], count=count)


_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", rich_help_panel=options.OUTPUT, help="The bundle's folder.")
]
_Split = Annotated[CutMode, typer.Option(rich_help_panel=options.SPLITTING, help="Where to cut between operators.")]
_Shard = Annotated[
    list[RequestedShard] | None,
    typer.Option(
        metavar="NAME=METHOD:N",
        parser=_asked_shards,
        rich_help_panel=options.SPLITTING,
        help="Split an operator into N shards; METHOD is output, input, channel, filter or spatial. Repeatable.",
    ),
]
_Policy = Annotated[
    ShardPolicy, typer.Option(rich_help_panel=options.SPLITTING, help="How to split operators that are too large.")
]
_Tile = Annotated[
    Tile, typer.Option(rich_help_panel=options.SPLITTING, help="Whether large activations may be computed in tiles of rows.")
]
_MaxParams = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=options.SPLITTING,
        help="Split operators with N parameters or more (Kaboubi's threshold).",
    ),
]
_Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=options.completion(lambda: PRESETS),
        rich_help_panel=options.INPUT,
        help=f"How a photograph becomes the input: {', '.join(PRESETS)}, or a TOML file.",
    ),
]
_Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", rich_help_panel=options.INPUT, help="Class names, line k for class k.")
]


def compile_command(
    model: options.ModelArgument,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.ThreadsOption = None,
    onnxruntime: options.OnnxruntimeOption = None,
    split: _Split = "auto",
    shard: _Shard = None,
    shard_policy: _Policy = "auto",
    tile: _Tile = "auto",
    max_params: _MaxParams = None,
    input_shape: options.ShapeOption = None,
    preprocess: _Preprocess = None,
    labels: _Labels = None,
    custom_ops: options.CustomOpsOption = None,
    output: _Output = Path("bundle"),
    force: options.ForceOption = False,
    steps: options.StepsOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Compile MODEL into a bundle for a device, a budget, or both.

    The device is --target, the budget --memory.
    """
    console = Console(quiet=quiet, verbose=verbose)
    base = Request(
        max_params=max_params,
        split=split,
        shards=_once_each(shard or ()),
        policy="auto" if shard_policy == "auto" else _METHOD_OF[shard_policy],
        tile=tile,
        images=preprocess is not None,
    )
    request, profile = resolve_request(base, target=target, memory_bytes=memory, threads=threads, onnxruntime=onnxruntime)
    if request.budget_bytes is None and not max_params and not shard:
        raise OptionError(
            "there is nothing to compile for; give --target NAME (see 'hypsc targets list') or --memory SIZE, or both"
        )
    job = Compilation(
        model=model,
        output=output,
        request=request,
        target_name=target_name(profile),
        input_shapes=options.shapes_by_name(input_shape),
        preprocess=preprocess,
        labels=labels,
        custom_ops=custom_ops,
        force=force,
    )
    compiled = compile_file(job, console.progress)
    console.explain(explanations(compiled))
    if json:
        print_json(summary_data(compiled, output))
    elif not quiet:
        show(compilation_summary(compiled, job, profile, every_step=steps))


def _once_each(shards: Sequence[RequestedShard]) -> tuple[RequestedShard, ...]:
    names = [each.operator for each in shards]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"--shard names {repeated[0]!r} twice; give one method for each operator")
    return tuple(shards)
