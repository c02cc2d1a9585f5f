"""Draw the layers' output sizes with the places to cut, and the steps' predicted and measured memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyps.compiler.report.axes import (
    ACTIVATIONS,
    BUDGET,
    CUT,
    MB,
    MEASURED,
    NAME_CHARACTERS,
    OPTIONAL,
    OTHER,
    clipped,
    draw_budget,
    merged_columns,
    name_columns,
)
from hyps.compiler.report.facts import Facts, Layer
from hyps.compiler.report.run_profile import Measurements

#: The most names below a wide and a narrow axis, and the most columns that have their values written on them.
_WIDE_NAMES, _NARROW_NAMES, _VALUES = 48, 24, 12


def draw_layers(figure: Figure, facts: Facts, *, narrow: bool) -> None:
    """Draw the output size of each layer, the split points and the cuts (Kaboubi, figure 4.4)."""
    layers, most = facts.layers, _NARROW_NAMES if narrow else _WIDE_NAMES
    sizes = np.array([layer.output_bytes for layer in layers], np.float64) / MB
    axis = figure.subplots()
    (heights,), edges = merged_columns((sizes,), np.arange(len(layers) + 1) - 0.5)
    label = f"output of the {'layer' if facts.whole else 'step'}"
    axis.stairs(heights, edges, fill=True, color=ACTIVATIONS, alpha=0.85, linewidth=0, label=label)
    for label, colour, marker, marked in _marks(layers):
        axis.plot(
            marked,
            sizes[marked],
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
        axis.axvline(index + 0.5, color=CUT, linewidth=1.1, linestyle=":", zorder=2)
    if any(layer.cut for layer in layers):
        axis.plot([], [], color=CUT, linewidth=1.1, linestyle=":", label="cut of the plan")
    name_columns(axis, [layer.name for layer in layers], most, "number of the layer, from 0")
    if len(layers) > most and not narrow:
        _name_marks(axis, layers, sizes, most)
    axis.set_xlim(-0.5, len(layers) - 0.5)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("size of the output, MB")
    figure.legend(loc="outside lower center", ncols=1 if narrow else 4)


def _marks(layers: Sequence[Layer]) -> Iterator[tuple[str, str, str, list[int]]]:
    """Yield the label, the colour, the marker and the layers of each kind of split point."""
    labels = {"optional": "optional split point: little data crosses", "mandatory": "mandatory split point: too large alone"}
    for kind, colour, marker in (("optional", OPTIONAL, "v"), ("mandatory", BUDGET, "D")):
        if marked := [index for index, layer in enumerate(layers) if layer.split == kind]:
            yield labels[kind], colour, marker, marked


def _name_marks(axis: Axes, layers: Sequence[Layer], sizes: np.ndarray, most: int) -> None:
    """Write the names of the layers with a split point above their marks, if there are at most ``most``."""
    marked = [index for index, layer in enumerate(layers) if layer.split]
    for index in marked if len(marked) <= most else ():
        axis.annotate(
            clipped(layers[index].name, NAME_CHARACTERS),
            (index, sizes[index]),
            xytext=(0, 7),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7.5,
        )


def draw_measured(figure: Figure, facts: Facts, measured: Measurements, *, narrow: bool) -> None:
    """Draw the predicted peak of every step as a column, and the resident memory of a run as a line across it."""
    runs = [measured.steps.get(step.name) for step in facts.steps]
    predicted = np.array([step.peak_bytes for step in facts.steps], np.float64) / MB
    resident = np.array([run.resident_bytes / MB if run else np.nan for run in runs], np.float64)
    axis = figure.subplots()
    (heights, lines), edges = merged_columns((predicted, resident), np.arange(len(runs) + 1) - 0.5)
    axis.stairs(heights, edges, fill=True, color=OTHER, linewidth=0, label="predicted peak")
    axis.hlines(lines, edges[:-1], edges[1:], color=MEASURED, linewidth=2.2, label="measured, resident")
    if len(runs) <= _VALUES:
        for index, size in enumerate(resident):
            if not np.isnan(size):
                axis.annotate(
                    f"{size:.1f}",
                    (index, size),
                    (0, -4),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    color="black",  # in the dark, too: the column is light
                )
    draw_budget(axis, facts.budget_bytes)
    most = _NARROW_NAMES if narrow else _WIDE_NAMES
    name_columns(axis, [step.name for step in facts.steps], most, "number of the step, from 0")
    axis.set_xlim(-0.5, len(runs) - 0.5)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("memory of the process, MB")
    figure.legend(loc="outside lower center", ncols=1 if narrow else 3)
