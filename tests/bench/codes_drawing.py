"""The plots of ``docs/codes.md``, like the thesis's figures 6.2, 6.9 and 6.11 to 6.15, from raw results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hyps.compiler.report.axes import ACTIVATIONS, BUDGET, CUT, MEASURED, OTHER, WEIGHTS
from hyps.compiler.report.plots import Format, Style, render
from hyps.runtime.cluster.placement.coverage import coverage_curve
from tests.bench.codes_results import CodesResults, DelayRun, KillRun, LossRun

#: The systems of figure 6.15: their devices by layer, as `tests/bench/thesis_systems.toml` and section 6.3 describe them.
SYSTEMS: Mapping[str, tuple[int, ...]] = {
    "AlexNet": (1, 1, 2, 1),
    "action recognition": (1, 1, 1, 2, 2, 1),
    "C3D, two each": (1, 2, 1, 2, 1),
    "C3D, three each": (1, 3, 1, 3, 1),
    "VGG16": (1, 1, 1, 1, 1, 2, 1),
}
_COLOURS = {"without codes": OTHER, "codes, late": WEIGHTS, "codes, always": ACTIVATIONS}


def codes_drawings(results: CodesResults, kind: Format = "svg") -> Mapping[str, bytes]:
    """Every plot that there are results for, by name."""
    draws: dict[str, Callable[[Figure], None]] = {"coverage": _coverage}
    if results.kills and results.kills.result:
        runs = results.kills.result
        draws["kills"] = lambda figure: _kills(figure, runs)
    if results.delays and results.delays.result:
        delays = results.delays.result
        draws["stragglers"] = lambda figure: _stragglers(figure, delays)
        draws["mitigation"] = lambda figure: _mitigation(figure, delays)
    if results.losses and results.losses.result:
        losses = results.losses.result
        draws["losses"] = lambda figure: _losses(figure, losses)
    return {name: render(f"codes-{name}", draw, Style(), kind) for name, draw in draws.items()}


def _kills(figure: Figure, runs: Sequence[KillRun]) -> None:
    """Figure 6.9: histograms of latency, undisturbed and around kills."""
    axes = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    longest = max(max(run.around_s) for run in runs)
    bins = np.geomspace(min(min(run.calm_s) for run in runs), longest, 40).tolist()
    for axis, run in zip(axes, runs, strict=True):
        for values, colour, label in ((run.calm_s, OTHER, "undisturbed"), (run.around_s, BUDGET, "around a kill")):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, bins, weights=weights, color=colour, alpha=0.7, label=label)
        axis.set_xscale("log")
        axis.set_title(run.name, fontsize=9)
        axis.set_xlabel("s of an answer")
    axes[0].set_ylabel("share of answers")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _stragglers(figure: Figure, runs: Sequence[DelayRun]) -> None:
    """Figures 6.11 and 6.12: latency histograms with and without mitigation, at the middle number of shards."""
    shards = sorted({run.shards for run in runs})[len({run.shards for run in runs}) // 2]
    chosen = [run for run in runs if run.shards == shards]
    axes = figure.subplots(1, len(chosen), squeeze=False, sharey=True, sharex=True)[0]
    bins = np.linspace(0, max(max(run.seconds) for run in chosen), 40).tolist()
    for axis, run in zip(axes, chosen, strict=True):
        axis.hist(run.seconds, bins, color=_COLOURS[run.name])
        axis.axvline(float(np.quantile(run.seconds, 0.95)), color=BUDGET, linestyle=":")
        axis.set_title(f"{run.name}, {shards} shards", fontsize=9)
        axis.set_xlabel("s; dotted: 95 %")
    axes[0].set_ylabel("inferences")


def _mitigation(figure: Figure, runs: Sequence[DelayRun]) -> None:
    """Figure 6.13b: how much lower latency is than without mitigation, by the number of shards."""
    axis = figure.subplots()
    base = {run.shards: run for run in runs if run.name == "without codes"}
    for name in ("codes, late", "codes, always"):
        own = [run for run in runs if run.name == name and run.shards in base]
        for share, line in ((0.95, "-"), (0.5, "--")):
            gains = [
                100 * (1 - np.quantile(run.seconds, share) / np.quantile(base[run.shards].seconds, share)) for run in own
            ]
            axis.plot(
                [run.shards for run in own],
                gains,
                line,
                marker="o",
                color=_COLOURS[name],
                label=f"{name}, {share:.0%} quantile",
            )
    axis.set_xticks(sorted(base))
    axis.set_xlabel("shards")
    axis.set_ylabel("% lower latency than without codes")
    figure.legend(loc="outside lower center", ncols=2)


def _losses(figure: Figure, runs: Sequence[LossRun]) -> None:
    """Figure 6.2: accuracy when a part of a layer is lost; the line across is with codes."""
    axis = figure.subplots()
    for run, (colour, marker) in zip(
        runs, ((WEIGHTS, "o"), (ACTIVATIONS, "s"), (MEASURED, "^"), (OTHER, "D"), (BUDGET, "v"), (CUT, "P")), strict=False
    ):
        lost = [100 * float(part) for part in run.accuracy]
        values = [100 * each for each in run.accuracy.values()]
        axis.plot(lost, values, color=colour, marker=marker, label=f"{run.network}, {run.layer}")
        axis.plot(lost, [100 * run.coded] * len(lost), color=colour, linestyle=":", linewidth=1)
    axis.set_xlabel("% of the layer's channels lost; dotted: decoded")
    axis.set_ylabel("% right")
    axis.set_ylim(0, 100)
    figure.legend(loc="outside lower center", ncols=2)


def _coverage(figure: Figure) -> None:
    """Figure 6.15: the part of the boards that may be lost, by extra boards."""
    figure.set_size_inches(10, 3)
    axes = figure.subplots(1, len(SYSTEMS), sharey=True)
    for axis, (name, stages) in zip(axes, SYSTEMS.items(), strict=True):
        curve = coverage_curve(stages)
        extra = [point.extra for point in curve]
        axis.plot(extra, [100 * point.replicated for point in curve], color=OTHER, marker="s", markersize=4, label="2MR")
        axis.plot(
            extra, [100 * point.coded for point in curve], color=WEIGHTS, marker="o", markersize=4, label="codes and 2MR"
        )
        axis.set_title(name, fontsize=8.5)
        axis.set_xlabel("extra boards")
    axes[0].set_ylabel("% of boards covered")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
