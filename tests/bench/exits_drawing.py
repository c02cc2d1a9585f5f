"""The plots of ``docs/early-exits.md``, from raw results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from hyps.compiler.report.axes import ACTIVATIONS, BUDGET, CUT, OTHER, WEIGHTS
from hyps.compiler.report.plots import Format, Style, render
from tests.bench.exits_results import BetaRun, ExitsResults, ParetoPoint

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
        runs = results.betas.result
        draws["betas"] = lambda figure: _betas(figure, runs)
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


def _betas(figure: Figure, runs: Sequence[BetaRun]) -> None:
    """Where images end on average, for beta between exits i and i + 1; the band is where it should be."""
    losses = list(dict.fromkeys(run.loss for run in runs))
    for axis, loss in zip(figure.subplots(1, len(losses), sharey=True, squeeze=False)[0], losses, strict=True):
        chosen = [run for run in runs if run.loss == loss]
        places = [run.place for run in chosen]
        axis.bar(places, [1] * len(places), bottom=places, color=OTHER, alpha=0.3, label="between i and i + 1")
        for name in chosen[0].mean_exit:
            axis.plot(places, [run.mean_exit[name] for run in chosen], "o-", color=_COLOURS[name], label=name)
        axis.set_title(f"beta from the {loss}", fontsize=9)
        axis.set_xlabel("i")
    axes = figure.axes
    axes[0].set_ylabel("mean exit")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
