"""Render the plots of ``hypsc report`` and ``hypsc plot`` with matplotlib, which the extra ``report`` installs.

The same facts give the same bytes: no date, no version, no random names. Names from the model are text, never markup.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from matplotlib import style as styles
from matplotlib.figure import Figure

from hyps.compiler.report.facts import Facts
from hyps.compiler.report.memory_plot import draw_memory
from hyps.compiler.report.run_profile import Measurements
from hyps.compiler.report.step_plots import draw_layers, draw_measured

Format = Literal["svg", "png"]

_NO_METADATA: Mapping[Format, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
#: Width and height of a plot in inches, for wide screens and for phones; an inch is 72 units of an SVG.
_WIDE, _NARROW = (10, 4.2), (3.8, 4.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The colours of text and of the paper (``none``: transparent), and whether the plot is for a phone."""

    ink: str = "#1c2126"
    paper: str = "white"
    narrow: bool = False


def plots(facts: Facts, measured: Measurements | None) -> Mapping[str, Callable[[Style, Format], bytes]]:
    """Return the plots of ``facts`` by name, as functions that render them.

    A model of one layer has no plot of layers: it would be a single mark.
    """
    named: dict[str, Callable[[Figure, bool], None]] = {
        "memory": lambda figure, narrow: draw_memory(figure, facts, narrow=narrow)
    }
    if len(facts.layers) > 1:
        named["layers"] = lambda figure, narrow: draw_layers(figure, facts, narrow=narrow)
    if facts.steps and measured is not None:
        named["measured"] = lambda figure, narrow: draw_measured(figure, facts, measured, narrow=narrow)
    return {name: partial(_rendered, name, draw) for name, draw in named.items()}


def _rendered(name: str, draw: Callable[[Figure, bool], None], style: Style, kind: Format) -> bytes:
    return render(name, lambda figure: draw(figure, style.narrow), style, kind)


def render(name: str, draw: Callable[[Figure], None], style: Style, kind: Format) -> bytes:
    """Return the file of one plot; ``name`` seeds the ids in an SVG."""
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
        size = _NARROW if style.narrow else _WIDE
        figure = Figure(figsize=size, layout="constrained", facecolor=style.paper)
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=144 if kind == "png" else 72, metadata=_NO_METADATA[kind])
    return stream.getvalue()
