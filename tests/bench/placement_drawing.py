"""The plots of ``docs/placement.md``, like the thesis's figures 4.15 to 4.23 and 4.29, from raw results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyps.compiler.report.axes import ACTIVATIONS, MEASURED, OPTIONAL, OTHER, PROCESS, WEIGHTS
from hyps.compiler.report.plots import Format, Style, render
from tests.bench.placement_results import PLANNERS, PlacementCase, SimulatedSystem

_COLOURS = dict(zip(PLANNERS, (PROCESS, OTHER, MEASURED, WEIGHTS, OPTIONAL), strict=True))
_WIDTH = 0.16


def placement_drawings(systems: Sequence[SimulatedSystem], kind: Format = "svg") -> Mapping[str, bytes]:
    """Every plot, by name."""
    draws: dict[str, Callable[[Figure], None]] = {}
    for system in systems:
        draws[system.key] = partial(_figures, system=system)
        if any(case.queues for case in system.cases):
            draws[f"{system.key}-queues"] = partial(_queues, system=system)
    return {name: render(f"placement-{name}", draw, Style(), kind) for name, draw in draws.items()}


def _figures(figure: Figure, system: SimulatedSystem) -> None:
    """Bars by number of devices, planners in the legend's order; a line in each bar of energy is its static part."""
    figure.set_size_inches(10, 3.6)
    axes = figure.subplots(1, 3)
    counts = sorted({case.devices for case in system.cases})
    done = [case for case in system.cases if case.skipped is None]
    _bars(axes[0], counts, done, lambda case: case.throughput_per_s, "inferences a second")
    _bars(axes[1], counts, done, lambda case: case.latency_s, "s of one input alone")
    _bars(axes[2], counts, done, lambda case: case.joules, "J an inference; below the line: static")
    for case in done:
        place = _place(counts, case)
        axes[2].plot([place - _WIDTH / 2, place + _WIDTH / 2], [case.static_joules] * 2, color=ACTIVATIONS, linewidth=2)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(PLANNERS))


def _place(counts: Sequence[int], case: PlacementCase) -> float:
    return counts.index(case.devices) + (list(PLANNERS).index(case.planner) - (len(PLANNERS) - 1) / 2) * _WIDTH


def _bars(
    axis: Axes, counts: Sequence[int], cases: Sequence[PlacementCase], figure: Callable[[PlacementCase], float], label: str
) -> None:
    for planner, name in PLANNERS.items():
        own = [case for case in cases if case.planner == planner]
        axis.bar(
            [_place(counts, case) for case in own],
            [figure(case) for case in own],
            width=_WIDTH,
            color=_COLOURS[planner],
            edgecolor="white",
            linewidth=0.3,
            label=name,
        )
    axis.set_xticks(range(len(counts)), list(map(str, counts)))
    axis.set_xlabel("devices")
    axis.set_ylabel(label)


def _queues(figure: Figure, system: SimulatedSystem) -> None:
    """A row of histograms for each of the thesis's own placements, one a device."""
    cases = [case for case in system.cases if case.queues and case.planner == "own"]
    widest = max(len(case.queues) for case in cases)
    figure.set_size_inches(10, 1.9 * len(cases))
    axes = figure.subplots(len(cases), widest, squeeze=False, sharey=True)
    for row, case in zip(axes, cases, strict=True):
        for axis, (name, shares) in zip(row, case.queues.items(), strict=False):
            axis.bar(range(len(shares)), shares, color=WEIGHTS)
            axis.set_title(f"{case.devices} devices: {name}", fontsize=8.5)
            axis.set_ylim(0, 1.05)
            axis.set_xticks((0, 5, 10))
        for axis in row[len(case.queues) :]:
            axis.set_visible(False)
    figure.supxlabel("inputs in the queue", fontsize=9)
    figure.supylabel("share of the time", fontsize=9)
