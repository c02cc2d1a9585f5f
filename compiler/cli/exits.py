"""``hypsc exits attach`` and ``hypsc exits record``: give a network exits, and record what it answers at each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.errors import OptionError
from hyps.runtime.suggestions import install
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.tables import Column, table
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.compiler.exits.attach import Attachment
    from hyps.compiler.exits.recorded import RecordedExits

_MEMORY_BYTES = 1_000_000_000
_Data = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        rich_help_panel=options.INPUT,
        help="The inputs: a folder of pictures, or of one folder of them a class, or a .npz file with arrays x and y.",
    ),
]
_Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=options.INPUT,
        help="The inputs' classes: a number a line, or NAME,CLASS (default: the data's own, else what the network answers).",
    ),
]
_Preprocess = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=options.INPUT, help="How pictures become inputs, as for 'hypsc compile'."),
]
_Memory = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=options.parse_size_option,
        help=f"The most memory for what is kept of the inputs (default: {megabytes(_MEMORY_BYTES)}).",
    ),
]
_After = Annotated[
    str | None,
    typer.Option(metavar="OP[,OP...]", help="Attach an exit after each of these operators, as 'hypsc analyze' names them."),
]
_Propose = Annotated[int | None, typer.Option(min=1, max=16, metavar="N", help="Find the best N places for exits.")]
_Hidden = Annotated[
    int, typer.Option(min=0, max=4096, metavar="N", help="Neurons in a hidden layer of each exit (default: no such layer).")
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", rich_help_panel=options.OUTPUT, help="The file to write.")
]


def exits_attach(
    model: options.ModelArgument,
    data: _Data,
    output: _Output,
    after: _After = None,
    propose: _Propose = None,
    hidden: _Hidden = 0,
    labels: _Labels = None,
    preprocess: _Preprocess = None,
    memory: _Memory = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Give a trained classifier early exits, and write it as another model.

    The network is not trained again, and its last output keeps its bits.
    """
    console = Console(quiet=quiet, verbose=verbose)
    names = tuple(filter(None, (after or "").split(",")))
    if bool(names) == bool(propose):
        raise OptionError("give either --after with operators, or --propose with a number of exits")
    check_file(output, force=force)
    try:
        import sklearn  # noqa: F401

        from hyps.compiler.exits.attach import attach_exits
    except ModuleNotFoundError as error:
        raise OptionError(f"hypsc exits attach needs the {error.name} library; {install('exits')}") from None
    with console.progress("attaching exits", None) as advance:
        attachment = attach_exits(
            model,
            output,
            data,
            after=names,
            propose=propose or 0,
            labels=labels,
            preprocess=preprocess,
            hidden=hidden,
            memory_bytes=memory or _MEMORY_BYTES,
            advance=advance,
        )
    if json:
        print_json(attachment)
        return
    if not quiet:
        show(_attached_lines(attachment))
    console.wrote(output)


def exits_record(
    model: options.ModelArgument,
    data: _Data,
    output: _Output,
    labels: _Labels = None,
    preprocess: _Preprocess = None,
    memory: _Memory = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Record what a model answers at every exit, for 'hypsc exits fit'.

    Every output is an exit, in order of depth; the last is the network's own.
    """
    from hyps.compiler.exits.record import record_exits  # imports onnxruntime

    console = Console(quiet=quiet, verbose=verbose)
    check_file(output, force=force)
    with console.progress("recording exits", None) as advance:
        recorded = record_exits(model, data, labels, preprocess, memory or _MEMORY_BYTES, advance)
    write_files(output.parent, {output.name: recorded.to_bytes()})
    if json:
        print_json([dict(zip(_FIELDS, row, strict=True)) for row in _figures(recorded)])
        return
    if not quiet:
        show(_recorded_lines(recorded))
    console.wrote(output)


_FIELDS = ("exit", "accuracy", "loss", "multiply_adds", "live_bytes")


def _figures(recorded: RecordedExits) -> Iterator[tuple[str, float, float, int, int]]:
    accuracies, losses = recorded.correct.mean(axis=0), recorded.losses
    rows = zip(recorded.names, accuracies, losses, recorded.multiply_adds, recorded.live_bytes, strict=True)
    for name, accuracy, loss, work, live_bytes in rows:
        yield name, float(accuracy), float(loss), work, live_bytes


def _recorded_lines(recorded: RecordedExits) -> Iterator[str]:
    headings = ("accuracy", "loss", "multiply-adds", "crosses")
    columns = [Column("exit"), *(Column(heading, numeric=True) for heading in headings)]
    whole = recorded.multiply_adds[-1] or 1
    rows = (
        [name, f"{accuracy:.2%}", f"{loss:.4f}", f"{work / whole:.1%}", f"{live_bytes:,}"]
        for name, accuracy, loss, work, live_bytes in _figures(recorded)
    )
    yield from table(columns, rows)
    yield f"{len(recorded.labels):,} inputs, {recorded.classes} classes"


def _attached_lines(attachment: Attachment) -> Iterator[str]:
    headings = ("accuracy", "multiply-adds", "crosses")
    columns = [Column("exit"), Column("after"), *(Column(heading, numeric=True) for heading in headings)]
    rows = [
        [
            each.name,
            each.place.operator,
            f"{each.accuracy:.2%}",
            f"{each.place.share:.1%}",
            f"{each.place.crossing_bytes:,}" if each.place.crossing_bytes else "several",
        ]
        for each in attachment.exits
    ]
    yield from table(columns, [*rows, ["(own output)", "", f"{attachment.own_accuracy:.2%}", "100.0%", ""]])
    yield f"accuracies on a fifth of {attachment.inputs:,} inputs, which the exits were not fitted to"
