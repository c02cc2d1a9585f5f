"""The plots of ``docs/benchmarks.md``, from raw results alone, in the style and colours of `hyps.compiler.report.plots`.

Colours differ in lightness, and shapes or places tell the same: nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyps.compiler.report.axes import ACTIVATIONS, BUDGET, CUT, MEASURED, OTHER, WEIGHTS
from hyps.compiler.report.plots import Format, Style, render
from tests.bench.readings import Predicted, Race, Raced, Results
from tests.bench.summary import MAPPED, bases, peak_bytes, warm_ratio

_MB = 1e6
_MARKERS = "sPv^"
#: Of one thread, and of one on every core.
_SERIES = ((WEIGHTS, "o", "-"), (ACTIVATIONS, "D", "--"))


def drawings(results: Results, kind: Format = "svg") -> Mapping[str, bytes]:
    """Every plot that there are results for, by name."""
    draws: dict[str, Callable[[Figure], None]] = {}
    races = results.latency.result if results.latency is not None else None
    if races:
        draws["memory"] = lambda figure: _memory(figure, races[0])
        draws["latency"] = lambda figure: _latency(figure, races)
        draws["tradeoff"] = lambda figure: _tradeoff(figure, races)
    rows = results.prediction.result if results.prediction is not None else None
    if rows:
        draws["prediction"] = lambda figure: _prediction(figure, rows)
    return {name: render(f"bench-{name}", draw, Style(), kind) for name, draw in draws.items()}


def _memory(figure: Figure, race: Race) -> None:
    """Stacked bars, a contender each; budgets as marks across."""
    axis = figure.subplots()
    places = range(len(race.contenders))
    anonymous, files = (
        [each.resident.anonymous_bytes / _MB for each in race.contenders],
        [each.resident.file_bytes / _MB for each in race.contenders],
    )
    axis.barh(places, anonymous, color=WEIGHTS, height=0.62, label="anonymous")
    axis.barh(
        places,
        files,
        left=anonymous,
        color=OTHER,
        hatch="///",
        edgecolor=WEIGHTS,
        linewidth=0,
        height=0.62,
        label="file-backed",
    )
    for place, each in zip(places, race.contenders, strict=True):
        peak, budget = peak_bytes(each) / _MB, (each.budget_bytes or 0) / _MB
        end = max(peak, budget, (each.resident.anonymous_bytes + each.resident.file_bytes) / _MB)
        axis.text(end + 12, place, f"{peak:.0f} MB", va="center", fontsize=8.5)
        if budget:
            axis.plot(
                [budget] * 2,
                [place - 0.42, place + 0.42],
                color=BUDGET,
                linewidth=2,
                label="budget" if _first(race, each) else None,
            )
    _names(axis, race)
    axis.set_xlabel(f"MB resident at the peak, {_threads(race)}; the number is VmHWM")
    figure.legend(loc="outside lower center", ncols=3)


def _latency(figure: Figure, races: Sequence[Race]) -> None:
    """Medians of ratios with their quartiles, a contender a line."""
    axis = figure.subplots()
    label, _ = _base(races[0])
    for number, race in enumerate(races):
        _, other = _base(race)
        spreads = [warm_ratio(each, other) for each in race.contenders]
        medians = [spread.median for spread in spreads]
        arms = [[spread.median - spread.low for spread in spreads], [spread.high - spread.median for spread in spreads]]
        colour, marker, _ = _SERIES[number]
        places = [place + (number - (len(races) - 1) / 2) * 0.36 for place in range(len(spreads))]
        axis.errorbar(
            medians,
            places,
            xerr=arms,
            color=colour,
            marker=marker,
            markersize=6,
            linestyle="none",
            capsize=3,
            label=_threads(race),
        )
        for place, spread in zip(places, spreads, strict=True):
            axis.text(spread.high + 0.02, place, f"{spread.median:.2f}", va="center", fontsize=8)
    axis.axvline(1, color=CUT, linewidth=1, linestyle=":")
    axis.set_xlim(left=0)
    axis.margins(x=0.06)
    _names(axis, races[0])
    axis.set_xlabel(f"time of a warm run / time of '{label}' in the same round: median, quartiles")
    figure.legend(loc="outside lower center", ncols=2)


def _tradeoff(figure: Figure, races: Sequence[Race]) -> None:
    """A curve through the bundles, and the whole model's ways as points; filled: the first race."""
    figure.set_size_inches(10, 5)
    axis = figure.subplots()
    label, _ = _base(races[0])
    tops: dict[float, tuple[float, float]] = {}
    for number, race in enumerate(races):
        _, other = _base(race)
        colour, marker, line = _SERIES[number]
        face = colour if number == 0 else "white"
        at = [(peak_bytes(each) / _MB, warm_ratio(each, other).median, each) for each in race.contenders]
        bundles = [(x, y, each.budget_bytes) for x, y, each in at if each.budget_bytes]
        axis.plot(
            [x for x, _, _ in bundles],
            [y for _, y, _ in bundles],
            color=colour,
            marker=marker,
            markerfacecolor=face,
            linestyle=line,
            label=f"bundles, {_threads(race)}",
        )
        for x, y, budget_bytes in bundles:
            budget = budget_bytes / _MB
            tops[budget] = max(tops.get(budget, (x, y)), (x, y), key=lambda point: point[1])
        for mark, (x, y, _) in zip(_MARKERS, [each for each in at if not each[2].budget_bytes], strict=False):
            axis.plot(x, y, marker=mark, markersize=8, color=colour, linestyle="none", markerfacecolor=face)
    for mark, whole in zip(_MARKERS, [each for each in races[0].contenders if not each.budget_bytes], strict=False):
        axis.plot([], [], marker=mark, markersize=8, color=CUT, linestyle="none", label=whole.label)
    for budget, point in tops.items():
        axis.annotate(f"{budget:.0f}", point, (0, 9), textcoords="offset points", ha="center", fontsize=8.5)
    axis.axhline(1, color=CUT, linewidth=1, linestyle=":", zorder=0)
    axis.margins(y=0.12)
    axis.set_xscale("log")
    _ticks(axis, "x", [peak_bytes(each) / _MB for race in races for each in race.contenders])
    axis.set_xlabel("MB resident at the peak (VmHWM), each step twice the last; numbers at the curves: budgets in MB")
    axis.set_ylabel(f"time of a warm run / time of\n'{label}'")
    figure.legend(loc="outside lower center", ncols=3)


def _ticks(axis: Axes, which: Literal["x", "y"], sizes: Sequence[float]) -> None:
    """Powers of two on a logarithmic axis, in MB."""
    ticks = [size for size in (32, 64, 128, 256, 512, 1024, 2048) if 0.9 * min(sizes) <= size <= 1.1 * max(sizes)]
    one = axis.xaxis if which == "x" else axis.yaxis
    one.set_ticks(ticks, [str(size) for size in ticks])
    one.set_ticks([], minor=True)


def _prediction(figure: Figure, rows: Sequence[Predicted]) -> None:
    """Predicted over measured, and the excess by network."""
    figure.set_size_inches(10, 5.4)
    whole, by_name = figure.subplots(1, 2, width_ratios=(1, 1.15))
    sizes = [(row.measured_bytes / _MB, row.predicted_bytes / _MB) for row in rows]
    ends = [0.9 * min(min(sizes)), 1.1 * max(max(sizes))]
    whole.plot(ends, ends, color=CUT, linewidth=1, linestyle=":", label="predicted = measured")
    whole.plot(
        [x for x, _ in sizes], [y for _, y in sizes], color=MEASURED, marker="o", markersize=4, linestyle="none", alpha=0.7
    )
    whole.set(xscale="log", yscale="log", xlabel="MB measured (VmHWM)", ylabel="MB predicted", aspect="equal")
    for which in ("x", "y"):
        _ticks(whole, which, ends)
    names = list(dict.fromkeys(row.network for row in rows))
    excesses = [100 * (row.predicted_bytes / row.measured_bytes - 1) for row in rows]
    by_name.axvline(0, color=CUT, linewidth=1, linestyle=":")
    by_name.plot(
        excesses,
        [names.index(row.network) for row in rows],
        color=MEASURED,
        marker="o",
        markersize=5,
        linestyle="none",
        alpha=0.7,
    )
    by_name.set_yticks(range(len(names)), names)
    by_name.invert_yaxis()
    by_name.set_xlabel("predicted above measured, %: a point a budget")
    figure.legend(loc="outside lower center")


def _names(axis: Axes, race: Race) -> None:
    """Contenders from the top downwards."""
    axis.set_yticks(range(len(race.contenders)), [each.label for each in race.contenders])
    axis.invert_yaxis()


def _base(race: Race) -> tuple[str, Raced]:
    """The whole model, mapped, or else the first to compare with."""
    others = [other for _, other in bases(race)]
    chosen = next((other for other in others if other.label == MAPPED), others[0])
    return chosen.label, chosen


def _first(race: Race, contender: Raced) -> bool:
    return contender is next(each for each in race.contenders if each.budget_bytes)


def _threads(race: Race) -> str:
    return "1 thread" if race.threads == 1 else f"{race.threads} threads"
