"""``hypsc compile``: compile a model into a bundle, and print the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyps.compiler.cli import options
from hyps.compiler.cli.asked import asked_code, asked_exits, asked_rates, asked_shard
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.cli.verdict import compilation_summary, explanations, summary_data
from hyps.compiler.errors import OptionError
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.compiler.preprocessing import PRESETS
from hyps.compiler.requests import ShardPolicy, planning_request, resolve_request, target_name
from hyps.compiler.video import asked_video
from hyps.passes.device import DeviceRates
from hyps.passes.planning.request import CutMode, HighestTier, RequestedCode, RequestedShard, Tile
from hyps.runtime.terminal.console import note, show
from hyps.runtime.units import megabytes

_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", rich_help_panel=options.OUTPUT, help="The bundle's folder.")
]
_Split = Annotated[CutMode, typer.Option(rich_help_panel=options.SPLITTING, help="Where to cut between operators.")]
_Shard = Annotated[
    list[RequestedShard] | None,
    typer.Option(
        metavar="NAME=METHOD:N",
        parser=asked_shard,
        rich_help_panel=options.SPLITTING,
        help="Split an operator into N shards; METHOD is output, input, channel, filter or spatial. Repeatable.",
    ),
]
_Code = Annotated[
    list[RequestedCode] | None,
    typer.Option(
        metavar="NAME=R",
        parser=asked_code,
        rich_help_panel=options.SPLITTING,
        help="Give an operator R parity shards (1 to 4), which replace any R of its shards on a cluster; NAME=R:rows: of "
        "tiles of a convolution's rows. Repeatable.",
    ),
]
_Tolerate = Annotated[
    int | None,
    typer.Option(
        metavar="R",
        rich_help_panel=options.SPLITTING,
        help="Give R parity shards (1 to 4) to every operator that is split by output or channel, and to the largest ones.",
    ),
]
_Policy = Annotated[
    ShardPolicy, typer.Option(rich_help_panel=options.SPLITTING, help="How to split operators that are too large.")
]
_Tile = Annotated[
    Tile, typer.Option(rich_help_panel=options.SPLITTING, help="Whether large activations may be computed in tiles of rows.")
]
_Tier = Annotated[
    HighestTier,
    typer.Option(
        rich_help_panel=options.SPLITTING,
        help="The fastest session options to use where there is room; auto includes onnxruntime's default options.",
    ),
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
_Video = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        rich_help_panel=options.INPUT,
        help="Leave room for a video of frames up to this size, e.g. 1280x720, which a model of several frames has anyway.",
    ),
]
_Exits = Annotated[
    str | None,
    typer.Option(
        metavar="auto|NAME,...",
        rich_help_panel=options.SPLITTING,
        help="Outputs at which an inference may end, in the order of their depth; auto: all that are like the last output.",
    ),
]
_ExitRates = Annotated[
    str | None,
    typer.Option(
        metavar="RATE,...",
        rich_help_panel=options.SPLITTING,
        help="The part of all inferences that ends at each exit but the last, e.g. 0.5,0.2 (default: none does).",
    ),
]
_CompressWeights = Annotated[
    bool,
    typer.Option(
        "--compress-weights",
        rich_help_panel=options.OUTPUT,
        help="Store weights compressed, without loss, where the device's storage is slower than decompression.",
    ),
]


def _fast_storage(device: DeviceRates) -> str:
    """Say why compressed weights would not come into memory sooner."""
    rates = (device.storage_bytes_per_s, device.decompression_bytes_per_s)
    storage, decompression = (megabytes(int(rate)) for rate in rates)
    return f"the device reads {storage}/s from its storage, and decompresses {decompression}/s"


_Tune = Annotated[
    bool,
    typer.Option(
        "--tune",
        rich_help_panel=options.OUTPUT,
        help="Tune the bundle for the processor of this machine, as 'hyps-run tune' does on a device.",
    ),
]
_Tunable = Annotated[
    bool,
    typer.Option(
        "--tunable",
        rich_help_panel=options.OUTPUT,
        help="Leave room in the budget for every step to be tuned on the device, with 'hyps-run tune'.",
    ),
]


def compile_command(
    model: options.ModelArgument,
    target: options.TargetOption = None,
    memory: options.MemoryOption = None,
    threads: options.ThreadsOption = None,
    onnxruntime: options.OnnxruntimeOption = None,
    interface: options.InterfaceOption = "python",
    split: _Split = "auto",
    shard: _Shard = None,
    code: _Code = None,
    tolerate: _Tolerate = None,
    shard_policy: _Policy = "auto",
    tile: _Tile = "auto",
    tier: _Tier = "auto",
    max_params: _MaxParams = None,
    input_shape: options.ShapeOption = None,
    preprocess: _Preprocess = None,
    labels: _Labels = None,
    video: _Video = None,
    from_: options.FromOption = None,
    until: options.UntilOption = None,
    custom_ops: options.CustomOpsOption = None,
    compress_weights: _CompressWeights = False,
    tune: _Tune = False,
    tunable: _Tunable = False,
    exits: _Exits = None,
    exit_rates: _ExitRates = None,
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
    base = planning_request(
        split=split,
        shards=shard or (),
        codes=code or (),
        tolerate=tolerate,
        shard_policy=shard_policy,
        tile=tile,
        tier=tier,
        max_params=max_params,
        images=preprocess is not None,
        tunable=tune or tunable,
        exits=asked_exits(exits),
        exit_rates=asked_rates(exit_rates),
    )
    request, profile = resolve_request(
        base,
        target=target,
        memory_bytes=memory,
        threads=threads,
        onnxruntime=onnxruntime,
        interface=interface,
        compress_weights=compress_weights,
    )
    if compress_weights and not request.device.compresses_weights and not quiet:
        note(f"weights are not compressed: {_fast_storage(request.device)}", "hypsc")
    if tune and request.has_codes:
        raise OptionError("--tune is for one board, and codes are for a cluster of them; leave one of the two out")
    if request.budget_bytes is None and not max_params and not shard and not request.has_codes:
        raise OptionError(
            "there is nothing to compile for; give --target NAME (see 'hypsc targets list') or --memory SIZE, or both"
        )
    job = Compilation(
        model=model,
        output=output,
        request=request,
        target_name=target_name(profile),
        power=profile.power if profile else None,
        input_shapes=options.shapes_by_name(input_shape),
        part=options.model_part(from_, until),
        preprocess=preprocess,
        labels=labels,
        video=asked_video(video),
        custom_ops=custom_ops,
        force=force,
        tune=tune,
    )
    compiled = compile_file(job, console.progress)
    console.explain(explanations(compiled))
    if json:
        print_json(summary_data(compiled, output))
    elif not quiet:
        show(compilation_summary(compiled, job, profile, every_step=steps))
