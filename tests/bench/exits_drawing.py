"""The plots of ``docs/early-exits.md``, from raw results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from hyps.compiler.report.axes import ACTIVATIONS, BUDGET, CUT, OTHER, WEIGHTS
from hyps.compiler.report.plots import Format, Style, render
from tests.bench.exits_results import BetaResults, ExitsResults, ParetoPoint

_COLOURS = {
    "thresholds": WEIGHTS,
    "optimum": ACTIVATIONS,
    "dqn": BUDGET,
    "guaranteed": CUT,
    "never exit": OTHER,
}


def exits_drawings(results: ExitsResults, kind: Format = "svg") -> Mapping[str, bytes]:
    """Every plot that there are results for, by name."""
    draws: dict[str, Callable[[Figure], None]] = {}
    if results.pareto and results.pareto.result:
        points = results.pareto.result
        draws["pareto"] = lambda figure: _pareto(figure, points)
    if results.betas and results.betas.result:
        found = results.betas.result
        draws["betas"] = lambda figure: _betas(figure, found)
    return {name: render(f"exits-{name}", draw, Style(), kind) for name, draw in draws.items()}


def _pareto(figure: Figure, points: Sequence[ParetoPoint]) -> None:
    """Accuracy against joules, and against milliseconds, of an image."""
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in _COLOURS.items():
        chosen = sorted((each for each in points if each.policy == name), key=lambda each: each.joules)
        accuracies = [each.accuracy for each in chosen]
        left.plot([each.joules for each in chosen], accuracies, "o-", color=colour, label=name, markersize=4)
        right.plot([1e3 * each.seconds for each in chosen], accuracies, "o-", color=colour, markersize=4)
    left.set_xlabel("joules of an image")
    right.set_xlabel("milliseconds of an image")
    left.set_ylabel("accuracy on the test images")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)


def _betas(figure: Figure, results: BetaResults) -> None:
    """Where images end on average by beta; bars are where they should, for beta from the error rate."""
    axis = figure.subplots()
    axis.plot(
        [beta for beta, _, _ in results.curve], [mean for _, mean, _ in results.curve], color=ACTIVATIONS, label="optimum"
    )
    for run in results.runs:
        if run.loss == "error rate" and run.beta > 0:
            axis.plot([run.beta] * 2, [run.place, run.place + 1], color=OTHER, linewidth=5, alpha=0.4)
            axis.plot([run.beta] * len(run.dqn_seeds), run.dqn_seeds, "o", color=BUDGET, markersize=4)
            axis.annotate(f"{run.place} and {run.place + 1}", (run.beta, run.place + 1), fontsize=8)
    axis.plot([], [], "o", color=BUDGET, label="dqn, each seed")
    axis.plot([], [], color=OTHER, linewidth=5, alpha=0.4, label="between i and i + 1 for beta from the error rate")
    axis.set_xscale("log")
    axis.set_xlabel("beta")
    axis.set_ylabel("mean exit")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
