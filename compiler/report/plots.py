"""The plots of ``hypsc report`` and ``hypsc plot``, by matplotlib: the extra ``report``, imported by whoever draws.

The same facts give the same bytes: no date, no version, no random names. Names from the model are text, never markup.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import style as styles
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hyps.compiler.report.facts import Facts, Layer, Timeline, printable
from hyps.compiler.report.run_profile import Measurements
from hyps.runtime.units import megabytes

FloatArray = NDArray[np.floating[Any]]
Format = Literal["svg", "png"]

#: More columns than this are no more to be seen: the largest of neighbours stands for them.
MOST_COLUMNS = 1_500
#: So many names fit below an axis.
MOST_NAMES = 48
PROCESS, WEIGHTS, BESIDE, ACTIVATIONS, BUDGET = "#9aa0a6", "#3f7fd1", "#93b9ea", "#e58a2b", "#d6453d"
CUT, OPTIONAL, MEASURED = "#7d8590", "#2e9e62", "#a04fc4"
_MB = 1e6
_NO_METADATA: Mapping[Format, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Colours of text and lines, and of the paper (``none``: whatever is behind)."""

    ink: str = "#1c2126"
    paper: str = "white"


def plots(facts: Facts, measured: Measurements | None) -> Mapping[str, Callable[[Style, Format], bytes]]:
    """What can be drawn of ``facts``, by name; each is drawn when it is called."""
    found = {"memory": lambda style, kind: _drawn("memory", _memory(facts), style, kind)}
    if facts.layers:
        found["layers"] = lambda style, kind: _drawn("layers", _layers(facts), style, kind)
    if facts.steps and measured is not None:
        given = measured
        found["measured"] = lambda style, kind: _drawn("measured", _measured(facts, given), style, kind)
    return found


_Draw = Callable[[Figure], None]


def _drawn(name: str, draw: _Draw, style: Style, kind: Format) -> bytes:
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "text.color": style.ink,
        "axes.labelcolor": style.ink,
        "axes.edgecolor": style.ink,
        "xtick.color": style.ink,
        "ytick.color": style.ink,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": ["sans-serif"],
        "font.size": 9,
        "legend.frameon": False,
    }
    with styles.context(["default", settings]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that matplotlib's own font lacks
        figure = Figure(figsize=(10, 4.2), layout="constrained", facecolor=style.paper)
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=144 if kind == "png" else 72, metadata=_NO_METADATA[kind])
    return stream.getvalue()


def _memory(facts: Facts) -> _Draw:
    """Live bytes over the schedule, of the whole model and of the bundle, each with the budget."""
    panels = [
        ("whole model", "operators in the model's order", facts.whole),
        ("bundle", "operators in the plan's order", facts.planned),
    ]
    shown = [(title, label, line) for title, label, line in panels if line is not None and line.widths]

    def draw(figure: Figure) -> None:
        if len(shown) == 2:
            figure.set_size_inches(10, 6.4)
        axes = figure.subplots(max(1, len(shown)), 1, squeeze=False)[:, 0]
        for axis, (title, label, line) in zip(axes, shown, strict=False):
            _stack(axis, line)
            axis.set_title(f"{title}: peak {megabytes(line.peak_bytes)}", loc="left", fontsize=10)
            axis.set_xlabel(label)
            axis.set_ylabel("MB")
            if facts.budget_bytes:
                axis.axhline(facts.budget_bytes / _MB, color=BUDGET, linewidth=1.8, linestyle="--", label=_budget(facts))
            axis.set_ylim(0, 1.06 * max(line.peak_bytes, facts.budget_bytes or 0) / _MB or 1)
        if shown:
            handles, labels = axes[-1].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=5)

    return draw


def _stack(axis: Axes, line: Timeline) -> None:
    edges = np.concatenate([[0], np.cumsum(line.widths)]).astype(np.float64)
    bands = [
        ("process", PROCESS, line.process_bytes, None),
        ("weights", WEIGHTS, line.weight_bytes, None),
        ("kept, read ahead, or of the start", BESIDE, line.beside_bytes, "///"),
        ("activations", ACTIVATIONS, line.activation_bytes, None),
    ]
    base = np.zeros(len(line.widths))
    for name, colour, nbytes, hatch in bands:
        if not any(nbytes):
            continue
        top = base + np.array(nbytes, np.float64) / _MB
        (low, high), places = _columns((base, top), edges)
        axis.stairs(
            high,
            places,
            baseline=low,
            fill=True,
            facecolor=colour,
            edgecolor=WEIGHTS if hatch else colour,
            hatch=hatch,
            linewidth=0,
            label=name,
        )
        base = top
    axis.set_xlim(0, max(1.0, float(edges[-1])))


def _columns(values: Sequence[FloatArray], edges: FloatArray) -> tuple[list[FloatArray], FloatArray]:
    """Neighbours together, by the largest, where there are more than can be seen."""
    count = len(edges) - 1
    if count <= MOST_COLUMNS:
        return list(values), edges
    starts = np.unique(np.linspace(0, count, MOST_COLUMNS, endpoint=False).astype(np.int64))
    return [np.maximum.reduceat(value, starts) for value in values], np.concatenate([edges[starts], edges[-1:]])


def _layers(facts: Facts) -> _Draw:
    """Output size per layer with the split points: Kaboubi, figure 4.4, whose minima are at the pooling layers."""
    layers = facts.layers
    sizes = np.array([layer.output_bytes for layer in layers], np.float64) / _MB

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        (heights,), places = _columns((sizes,), np.arange(len(layers) + 1) - 0.5)
        axis.stairs(
            heights,
            places,
            fill=True,
            color=ACTIVATIONS,
            alpha=0.85,
            linewidth=0,
            label=f"output of the {'layer' if facts.whole else 'step'}",
        )
        for label, colour, marker, chosen in _marks(layers):
            axis.plot(
                chosen,
                sizes[chosen],
                linestyle="none",
                marker=marker,
                color=colour,
                markeredgecolor="white",
                markeredgewidth=0.6,
                markersize=8,
                clip_on=False,
                label=label,
                zorder=3,
            )
        for index in (index for index, layer in enumerate(layers) if layer.cut):
            axis.axvline(index + 0.5, color=CUT, linewidth=0.9, linestyle=":", zorder=2)
        if any(layer.cut for layer in layers):
            axis.plot([], [], color=CUT, linewidth=1, linestyle=":", label="cut of the plan")
        _name_axis(axis, [layer.name for layer in layers])
        marked = [index for index, layer in enumerate(layers) if layer.split]
        for index in marked if len(layers) > MOST_NAMES and len(marked) <= MOST_NAMES else ():
            axis.annotate(
                clipped(layers[index].name, 22),
                (index, sizes[index]),
                xytext=(0, 7),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7.5,
            )
        axis.set_xlim(-0.5, len(layers) - 0.5)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("MB put out")
        figure.legend(loc="outside lower center", ncols=4)

    return draw


def _marks(layers: Sequence[Layer]) -> Iterator[tuple[str, str, str, list[int]]]:
    for kind, colour, marker in (("optional", OPTIONAL, "v"), ("mandatory", BUDGET, "D")):
        if chosen := [index for index, layer in enumerate(layers) if layer.split == kind]:
            yield f"{kind} split point", colour, marker, chosen


def _measured(facts: Facts, measured: Measurements) -> _Draw:
    """The predicted peak of every step beside the resident memory of a run."""
    rows = [(step, measured.steps.get(step.name)) for step in facts.steps]
    places = np.arange(len(rows) + 1) - 0.5

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        predicted = np.array([step.peak_bytes for step, _ in rows], np.float64) / _MB
        (heights,), edges = _columns((predicted,), places)
        axis.stairs(heights, edges, fill=True, color=BESIDE, linewidth=0, label="predicted peak")
        known = [(index, run.resident_bytes / _MB) for index, (_, run) in enumerate(rows) if run is not None]
        axis.plot(
            [index for index, _ in known],
            [size for _, size in known],
            color=MEASURED,
            marker="o" if len(known) <= 200 else "",
            markersize=4,
            linewidth=1.2,
            label="measured, resident",
        )
        if facts.budget_bytes:
            axis.axhline(facts.budget_bytes / _MB, color=BUDGET, linewidth=1.8, linestyle="--", label=_budget(facts))
        _name_axis(axis, [step.name for step, _ in rows])
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("MB")
        figure.legend(loc="outside lower center", ncols=3)

    return draw


def _budget(facts: Facts) -> str:
    return f"budget, {megabytes(facts.budget_bytes or 0)}"


def _name_axis(axis: Axes, names: Sequence[str]) -> None:
    """Names below the axis where they have room, else their numbers."""
    if len(names) <= MOST_NAMES:
        axis.set_xticks(range(len(names)), [clipped(name, 22) for name in names], rotation=90, fontsize=7.5)
    else:
        axis.set_xlabel("number in the schedule, from 0")


def clipped(name: str, length: int) -> str:
    """A name in so many characters at most, its end kept."""
    text = printable(name)
    return text if len(text) <= length else f"…{text[1 - length :]}"
