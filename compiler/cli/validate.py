"""``hypsc validate``: compare a bundle's outputs with the whole model's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, counted, print_json
from hyps.compiler.errors import OptionError
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.tables import Column, table

if TYPE_CHECKING:
    from hyps.compiler.validate import Validation

_RANDOM_INPUTS = 3
_Inputs = Annotated[
    Path | None, typer.Option(metavar="FILE", rich_help_panel=options.INPUT, help="Compare on a .npz or .npy file.")
]
_Images = Annotated[
    Path | None, typer.Option(metavar="DIR", rich_help_panel=options.INPUT, help="Compare on a folder of photographs.")
]
_Random = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=options.INPUT,
        help=f"Compare on N random inputs (default: {_RANDOM_INPUTS}).",
    ),
]
_Tolerance = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Allow a difference of X times the largest output (default: what the bundle promises).",
    ),
]


_Untuned = Annotated[bool, typer.Option("--untuned", help="Compare a tuned bundle as it was before it was tuned.")]


def validate_command(
    model: options.ModelArgument,
    bundle: options.BundleArgument,
    inputs: _Inputs = None,
    images: _Images = None,
    random: _Random = None,
    custom_ops: options.CustomOpsOption = None,
    tolerance: _Tolerance = None,
    untuned: _Untuned = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Compare a bundle's outputs with the whole model's.

    Both run on the same inputs. The exit code is 1 if an output differs by more than the tolerance.
    """
    from hyps.compiler.validate import file_inputs, input_count, random_inputs, validate  # imports onnxruntime

    console = Console(quiet=quiet, verbose=verbose)
    if sum(choice is not None for choice in (inputs, images, random)) > 1:
        raise OptionError("--inputs, --images and --random exclude each other; give one")
    manifest = read_manifest(bundle)
    path, count = inputs or images, random or _RANDOM_INPUTS
    samples = file_inputs(manifest, path) if path else random_inputs(manifest, count)
    with console.progress("comparing", input_count(path) if path else count) as advance:
        validation = validate(model, bundle, samples, tolerance, custom_ops, advance, is_tuned=not untuned)
    if json:
        print_json(msgspec.to_builtins(validation) | {"passed": validation.passed})
    else:
        show(_lines(validation, quiet=quiet))
    if not validation.passed:
        raise typer.Exit(1)


def _lines(validation: Validation, *, quiet: bool) -> Iterator[str]:
    """Yield a table of the outputs' differences, unless quiet, and the verdict."""
    figures = ("max abs", "max rel", "cosine", "top-1", "top-5")
    columns = [Column("output"), *(Column(figure, numeric=True) for figure in figures)]
    rows = [
        [
            output.name,
            f"{output.max_abs:.3g}",
            f"{output.max_rel:.3g}",
            f"{output.cosine:.9f}",
            f"{output.top1:.1%}" if output.top1 is not None else "-",
            f"{output.top5:.1%}" if output.top5 is not None else "-",
        ]
        for output in validation.outputs
    ]
    if not quiet:
        yield from table(columns, rows)
    for code in validation.codes if not quiet else ():
        within = "within" if code.passed else "NOT within"
        bound = (
            f"{within} {code.error_bound:.1e} of the largest output"
            if code.error_bound
            else f"{'' if code.passed else 'NOT '}exactly"
        )
        yield (
            f"code of {code.name}, {code.shards} + {code.parity} shards: a lost shard is decoded {bound} "
            f"(at most {code.max_rel:.1e} off)"
        )
    tolerance = validation.tolerance
    bound = "nothing, as no bound is promised" if math.isinf(tolerance) else f"within {tolerance:g} of the largest output"
    required = bound if tolerance else "equal bit for bit"
    whole = " to stock onnxruntime's" if validation.stock and tolerance == 0 else ""
    verdict = "passed" if validation.passed else "FAILED"
    yield f"{verdict}: {counted(validation.samples, 'input')}, required: {required}{whole}"
    if validation.saturates and not validation.passed:
        yield (
            "8-bit products saturate on this processor (x86 without VNNI): onnxruntime's own result for the whole model may "
            "be wrong, where the bundle's is right; validate on another processor, or quantise to 7 bits (reduce_range)"
        )
