"""Draw the predicted memory of the whole model and of the bundle over the schedule, on one scale."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyps.compiler.report.axes import (
    ACTIVATIONS,
    MB,
    OTHER,
    PROCESS,
    WEIGHTS,
    count_columns,
    draw_budget,
    merged_columns,
)
from hyps.compiler.report.facts import Facts, Timeline
from hyps.runtime.units import megabytes


def draw_memory(figure: Figure, facts: Facts, *, narrow: bool) -> None:
    """Draw the whole model and the bundle next to each other, or one below the other if ``narrow``."""
    panels = [(title, line) for title, line in (("whole model", facts.whole), ("bundle", facts.planned)) if line]
    if narrow:
        figure.set_size_inches(figure.get_figwidth(), 2.2 + 2.2 * len(panels))
    rows, columns = (len(panels), 1) if narrow else (1, len(panels))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    highest = max([line.peak_bytes for _, line in panels] + [facts.budget_bytes or 0])
    for axis, (title, line) in zip(axes, panels, strict=True):
        _stack(axis, line)
        axis.set_title(f"{title}: peak {megabytes(line.peak_bytes)}", loc="left", fontsize=11)
        axis.grid(axis="y", linewidth=0.5, alpha=0.35)
        axis.set_axisbelow(True)
        draw_budget(axis, facts.budget_bytes)
        count_columns(axis, "operators run so far")
        if narrow or axis is axes[0]:
            axis.set_ylabel("memory of the process, MB")
    axes[0].set_ylim(0, 1.06 * highest / MB or 1)
    shown = {label: handle for axis in axes[::-1] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=1 if narrow else 5)


def _stack(axis: Axes, line: Timeline) -> None:
    """Stack the four parts of the process's memory, one column per step."""
    edges = np.concatenate([[0], np.cumsum(line.widths)]).astype(np.float64)
    bands = [
        ("Python and libraries", PROCESS, line.process_bytes, None),
        ("weights in use", WEIGHTS, line.weight_bytes, None),
        ("start-up, or weights of other steps", OTHER, line.other_bytes, "///"),
        ("activations", ACTIVATIONS, line.activation_bytes, None),
    ]
    base = np.zeros(len(line.widths))
    for name, colour, nbytes, hatch in bands:
        if not any(nbytes):
            continue
        top = base + np.array(nbytes, np.float64) / MB
        (low, high), places = merged_columns((base, top), edges)
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
