"""Put the commands of ``hypsc`` together, and run the one that a command line asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from onnx_graphsurgeon.logger import G_LOGGER
from typer.core import TyperCommand

from hyps.compiler.cli.analyze import analyze_command
from hyps.compiler.cli.compile import compile_command
from hyps.compiler.cli.exits import exits_attach, exits_record
from hyps.compiler.cli.exits_fit import exits_fit
from hyps.compiler.cli.inspect import inspect_command
from hyps.compiler.cli.models import models_build, models_list
from hyps.compiler.cli.report import plot_command, report_command
from hyps.compiler.cli.targets import targets_list, targets_show
from hyps.compiler.cli.validate import validate_command
from hyps.runtime.terminal.console import plain, say
from hyps.runtime.terminal.exit import EXIT_CODES
from hyps.runtime.terminal.versions import RUNTIME, version_lines

#: The base of the errors that typer raises for wrong options; typer does not export it.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

_EXAMPLES = {
    "": ("hypsc compile net.onnx --memory 128MB -o net", "hyps-run net photo.jpg"),
    "compile": (
        "hypsc compile net.onnx --memory 128MB",
        "hypsc compile net.onnx --target rpizero2w --preprocess imagenet -o net",
        "hypsc compile net.onnx --target board.toml --shard fc6=output:32 -v",
    ),
    "inspect": ("hypsc inspect net", "hypsc inspect net --steps"),
    "validate": ("hypsc validate net.onnx net", "hypsc validate net.onnx net --images photos"),
    "analyze": ("hypsc analyze net.onnx --sort weights --top 10", "hypsc analyze net.onnx --memory 128MB --csv net.csv"),
    "report": ("hypsc report net -o net.html", "hypsc report net.onnx --memory 128MB -o net.html"),
    "plot": ("hypsc plot net -o plots", "hypsc plot net --profile run.json --format png -o plots"),
    "exits attach": (
        "hypsc exits attach net.onnx --propose 3 --data photos --preprocess imagenet -o exits.onnx",
        "hypsc exits attach net.onnx --after relu3,pool4 --data train.npz -o exits.onnx",
    ),
    "exits record": ("hypsc exits record exits.onnx --data test.npz --preprocess cifar10 -o recorded.npz",),
    "exits fit": (
        "hypsc exits fit recorded.npz --policy guaranteed --max-loss 1% -o policy.json",
        "hypsc exits fit recorded.npz --policy dqn --beta-between 2 -o policy.onnx",
    ),
    "targets list": ("hypsc targets list -v",),
    "targets show": ("hypsc targets show rpi3b > board.toml",),
    "models list": ("hypsc models list",),
    "models build": ("hypsc models build vgg16 -o vgg16.onnx",),
}


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under the headings that they name (``rich_help_panel``)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per heading, in the order of the command's parameters."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _epilog(command: str) -> str:
    """Return a help's last lines: examples, and the exit codes. ``\\b`` keeps a paragraph's line ends."""
    return "\n".join(("\b", "Examples:", *(f"  {example}" for example in _EXAMPLES[command]), "", EXIT_CODES))


app = typer.Typer(
    name="hypsc",
    help="Compile an ONNX model into a bundle that runs within a device's memory.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_epilog(""),
)
_targets = typer.Typer(help="List and show the devices that hypsc knows.", no_args_is_help=True, epilog=EXIT_CODES)
_models = typer.Typer(help="List and build reference networks.", no_args_is_help=True, epilog=EXIT_CODES)
_exits = typer.Typer(
    help="Give a network early exits, and learn when to take them.", no_args_is_help=True, epilog=EXIT_CODES
)
_COMMANDS: Mapping[str, Callable[..., None]] = {
    "compile": compile_command,
    "inspect": inspect_command,
    "validate": validate_command,
    "analyze": analyze_command,
    "report": report_command,
    "plot": plot_command,
    "exits attach": exits_attach,
    "exits record": exits_record,
    "exits fit": exits_fit,
    "targets list": targets_list,
    "targets show": targets_show,
    "models list": models_list,
    "models build": models_build,
}
for _words, _command in _COMMANDS.items():
    _group, _, _name = _words.rpartition(" ")
    _parent = {"": app, "exits": _exits, "targets": _targets, "models": _models}[_group]
    _parent.command(_name, cls=GroupedCommand, epilog=_epilog(_words))(_command)
app.add_typer(_exits, name="exits")
app.add_typer(_targets, name="targets")
app.add_typer(_models, name="models")


def _print_versions(is_asked: bool) -> None:
    if is_asked:
        typer.echo("\n".join(version_lines("hypsc", ("onnx", "onnx-graphsurgeon", "networkx", *RUNTIME))))
        raise typer.Exit


@app.callback()
def hypsc(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Compile an ONNX model into a bundle that runs within a device's memory."""


def run_hypsc(arguments: Sequence[str] | None) -> int:
    """Run the command that ``arguments`` ask for and return the exit code; raise `hyps.HypsError` for a mistake."""
    G_LOGGER.severity = G_LOGGER.CRITICAL  # graphsurgeon would print warnings on standard output
    try:
        return app(args=arguments, standalone_mode=False) or 0
    except _UsageError as error:
        message: str = error.format_message()
        message = message.replace(": Value error, ", ": ")  # typer passes on pydantic's prefix
        if "\n" in message:  # the help of a group that was named without a command
            sys.stderr.write("".join(f"{plain(line)}\n" for line in message.splitlines()))
            return 2
        return say(f"{message} (see 'hypsc --help')", "hypsc")
