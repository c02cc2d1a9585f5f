"""Provide the colours and the axes that the report's plots have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hyps.runtime.terminal.console import plain
from hyps.runtime.units import megabytes

FloatArray = NDArray[np.floating[Any]]

#: More columns cannot be told apart: the largest of several neighbours is drawn in their place.
MOST_COLUMNS = 1_500
#: The most characters of a name below an axis.
NAME_CHARACTERS = 22
#: Characters of a name per inch of the picture, if names are written horizontally; measured with a margin.
CHARACTERS_PER_INCH = 11
PROCESS, WEIGHTS, OTHER, ACTIVATIONS, BUDGET = "#9aa0a6", "#3f7fd1", "#93b9ea", "#e58a2b", "#d6453d"
CUT, OPTIONAL, MEASURED = "#7d8590", "#2e9e62", "#a04fc4"
MB = 1e6


def merged_columns(values: Sequence[FloatArray], edges: FloatArray) -> tuple[list[FloatArray], FloatArray]:
    """Return at most `MOST_COLUMNS` columns and their edges; each has the largest of its neighbours' values."""
    count = len(edges) - 1
    if count <= MOST_COLUMNS:
        return list(values), edges
    starts = np.unique(np.linspace(0, count, MOST_COLUMNS, endpoint=False).astype(np.int64))
    return [np.fmax.reduceat(value, starts) for value in values], np.concatenate([edges[starts], edges[-1:]])


def draw_budget(axis: Axes, budget_bytes: int | None) -> None:
    """Draw the dashed line of the budget, if there is one."""
    if budget_bytes:
        label = f"budget, {megabytes(budget_bytes)}"
        axis.axhline(budget_bytes / MB, color=BUDGET, linewidth=1.8, linestyle="--", label=label, zorder=4)


def name_columns(axis: Axes, names: Sequence[str], most: int, numbered: str) -> None:
    """Write the names below the axis if there are at most ``most``, else their numbers with the label ``numbered``."""
    if len(names) <= most:
        shown = [clipped(name, NAME_CHARACTERS) for name in names]
        inches = axis.figure.bbox.width / axis.figure.dpi
        has_room = len(shown) * max(map(len, shown), default=0) < CHARACTERS_PER_INCH * inches
        axis.set_xticks(range(len(shown)), shown, rotation=0 if has_room else 90, fontsize=7.5)
    else:
        count_columns(axis, numbered)


def count_columns(axis: Axes, label: str) -> None:
    """Give a horizontal axis a label and whole numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.set_xlabel(label)


def clipped(name: str, length: int) -> str:
    """Return the last ``length`` characters of a name: the ends of names differ more than their beginnings."""
    text = plain(name)
    return text if len(text) <= length else f"…{text[1 - length :]}"
