"""``hypsc exits fit``: fit a policy to recorded exits, and write it for ``hyps-run --exit-policy``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hyps.compiler.atomic_files import check_file, write_files
from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, print_json
from hyps.compiler.errors import OptionError
from hyps.runtime.suggestions import install
from hyps.runtime.terminal.console import show
from hyps.runtime.terminal.tables import Column, table

if TYPE_CHECKING:
    from hyps.compiler.exits.fit import FittedPolicy, PolicyFigures

_Kind = Literal["thresholds", "guaranteed", "optimal", "dqn"]
_EPISODES, _MOST_LOSS, _CONFIDENCE = 10_000, 0.01, 0.95
_REWARD = "Reward"


def _share(text: str) -> float:
    """Parse ``1%`` or ``0.01``."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise typer.BadParameter(f"{text!r} is no share; write e.g. 1% or 0.01")
    return share


_Recorded = Annotated[Path, typer.Argument(metavar="RECORDED", help="The .npz file of 'hypsc exits record'.")]
_Policy = Annotated[
    _Kind,
    typer.Option(
        help="thresholds; thresholds with a guaranteed accuracy; the optimal action for every bin of confidence; or dqn, "
        "learned by deep Q-learning."
    ),
]
_MaxLoss = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help=f"The most accuracy to lose, for thresholds and guaranteed (default for guaranteed: {_MOST_LOSS:.0%}).",
    ),
]
_Confidence = Annotated[
    float | None,
    typer.Option(metavar="SHARE", parser=_share, help=f"The confidence of the guarantee (default: {_CONFIDENCE:.0%})."),
]
_Alpha = Annotated[float, typer.Option(min=0, rich_help_panel=_REWARD, help="What a joule, or else an exit, costs.")]
_Beta = Annotated[float | None, typer.Option(rich_help_panel=_REWARD, help="What a right answer is worth.")]
_BetaBetween = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="I", rich_help_panel=_REWARD, help="Take beta from the losses at exits I and I + 1, counted from 1."
    ),
]
_ClassWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=_REWARD, help="Weights of beta by true class, a number a line."),
]
_Conditions = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=_REWARD, help="A TOML file: energy and time, the link, the deadline."),
]
_Test = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Recorded exits of other inputs, to measure the policy on.")
]
_Episodes = Annotated[int, typer.Option(min=100, max=1_000_000, metavar="N", help="Episodes that dqn learns from.")]
_Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of all that is drawn.")]
_Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", rich_help_panel=options.OUTPUT, help="The policy's file: .json, of dqn .onnx."
    ),
]
_Page = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html",
        rich_help_panel=options.OUTPUT,
        help="A page that compares the policy with others: accuracy against energy and time, by beta.",
    ),
]


def exits_fit(
    recorded: _Recorded,
    policy: _Policy,
    output: _Output,
    max_loss: _MaxLoss = None,
    confidence: _Confidence = None,
    alpha: _Alpha = 1.0,
    beta: _Beta = None,
    beta_between: _BetaBetween = None,
    class_weights: _ClassWeights = None,
    conditions: _Conditions = None,
    test: _Test = None,
    episodes: _Episodes = _EPISODES,
    seed: _Seed = 0,
    page: _Page = None,
    force: options.ForceOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Fit a policy that decides at every exit: stay, exit or offload.

    The reward is -alpha x energy + beta x correct. Without conditions, every exit costs 1.
    """
    console = Console(quiet=quiet, verbose=verbose)
    suffix = ".onnx" if policy == "dqn" else ".json"
    if output.suffix != suffix:
        raise OptionError(f"-o {output}: a policy of kind {policy} is a {suffix} file; name one")
    check_file(output, force=force)
    if page is not None:
        check_file(page, force=force)
    is_rewarded = policy in ("optimal", "dqn") or (policy == "thresholds" and max_loss is None)
    if is_rewarded != ((beta is not None) + (beta_between is not None) == 1) or (not is_rewarded and class_weights):
        raise OptionError(
            f"--policy {policy} maximises the reward: give either --beta or --beta-between"
            + (", or --max-loss alone, for no reward" if policy == "thresholds" else "")
            if is_rewarded
            else f"--policy {policy} keeps to --max-loss, without a reward; leave out beta and class weights"
        )
    if (max_loss is not None and policy not in ("thresholds", "guaranteed")) or (confidence and policy != "guaranteed"):
        raise OptionError("--max-loss is for thresholds and guaranteed, --confidence for guaranteed alone; leave them out")
    from hyps.compiler.exits.fit import FitRequest, fit_policy  # imports onnxruntime

    request = FitRequest(
        kind=policy,
        most_loss=_MOST_LOSS if max_loss is None and policy == "guaranteed" else max_loss,
        confidence=confidence or _CONFIDENCE,
        alpha=alpha,
        beta=beta,
        beta_between=beta_between,
        class_weights=class_weights,
        conditions=conditions,
        episodes=episodes,
        seed=seed,
    )
    try:
        with console.progress(f"fitting {policy}", episodes if policy == "dqn" else None) as advance:
            fitted = fit_policy(recorded, test, request, advance)
    except ModuleNotFoundError as error:
        raise OptionError(f"--policy {policy} needs the {error.name} library; {install('policy')}") from None
    write_files(output.parent, {output.name: fitted.content})
    if page is not None:
        from hyps.compiler.exits.comparison import compare_policies
        from hyps.compiler.report.policy_page import policy_page

        compared = compare_policies(fitted.policy, fitted.recorded, fitted.tested, fitted.conditions)
        write_files(page.parent, {page.name: policy_page(f"{output.name}, {policy}", compared)})
    if json:
        print_json({"fitted": fitted.fitted, "test": fitted.test, "note": fitted.note})
        return
    if not quiet:
        show(_lines(fitted))
    console.wrote(output)
    if page is not None:
        console.wrote(page)


def _lines(fitted: FittedPolicy) -> Iterator[str]:
    measured = [("fitted to", fitted.fitted), *([("tested on", fitted.test)] if fitted.test else [])]
    names = fitted.fitted.shares
    columns = [
        Column("inputs"),
        *(Column(heading, numeric=True) for heading in ("accuracy", "whole network", "computed", "value")),
        *(Column(name, numeric=True, spare=True) for name in names),
        Column("offloaded", numeric=True),
    ]
    yield from table(columns, [_row(label, figures) for label, figures in measured])
    yield fitted.note


def _row(label: str, figures: PolicyFigures) -> list[str]:
    return [
        f"{label} {figures.inputs:,}",
        f"{figures.accuracy:.2%}",
        f"{figures.whole_accuracy:.2%}",
        f"{figures.computed:.1%}",
        f"{figures.value:.4g}" if figures.value is not None else "-",
        *(f"{share:.1%}" for share in figures.shares.values()),
        f"{figures.offloaded:.1%}",
    ]
