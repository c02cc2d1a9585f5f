"""Make ``hypsc report``'s file: one HTML page that holds everything, opens from a disk and needs no network.

Every name comes from the user's model: text is escaped on its way into the page, and the script writes text, never markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from importlib.resources import files
from string import Template

import msgspec

from hyps.compiler.report.facts import Facts, shortened_name
from hyps.compiler.report.graph_runs import MOST_NODES, in_runs
from hyps.compiler.report.plots import Format, Style, plots
from hyps.compiler.report.run_profile import Measurements
from hyps.compiler.report.tables import MOST_CHARACTERS, escaped, tables
from hyps.runtime.units import megabytes

#: The colour in the plots that becomes the colour of the page's text.
_INK = "#010203"
_CAPTIONS = {
    "memory": (
        "Memory over the schedule",
        "The predicted memory of the whole process while each operator runs. Both plots have the same scale. The dashed "
        "line is the budget.",
    ),
    "layers": (
        "Output size of each layer, and where to cut",
        "A cut is cheap where the output before it is small, above all after poolings (figure 4.4 of Kaboubi's thesis).",
    ),
    "measured": (
        "Predicted against measured",
        "The predicted peak of each step, and the memory that the process held after it. The measured memory includes what "
        "earlier steps left.",
    ),
}
_ONE_MEMORY = "The predicted memory of the whole process while each operator runs."
_BUNDLE_ALONE = {
    "memory": (
        "Memory over the schedule",
        "The predicted memory of the whole process while each step runs. The dashed line is the budget. The whole model is "
        "not shown, because this bundle has no figures of it; compile it again, or report the model itself.",
    ),
    "layers": ("Output size of each step", "The bundle is cut after each step."),
}


def page(facts: Facts, measured: Measurements | None = None) -> bytes:
    """Return the page in UTF-8; the same facts give the same bytes."""
    parts = files("hyps.compiler.report.data")
    captions = _captions(facts)
    figures = [_figure(name, *captions[name], draw) for name, draw in plots(facts, measured).items()]
    data, caption = _graph(facts)
    text = Template(parts.joinpath("page.html").read_text("utf-8")).substitute(
        title=escaped(facts.title, 80),
        kind=facts.kind,
        headline=escaped(facts.headline, 600),
        style=parts.joinpath("page.css").read_text("utf-8"),
        pairs="".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value, 600)}</dd>" for name, value in facts.pairs),
        figures="".join(figures),
        caption=escaped(caption, 600),
        tables="".join(tables(facts, measured)),
        data=data,
        layout=files("hyps.runtime.web").joinpath("static", "layout.js").read_text("utf-8"),
        script=parts.joinpath("page.js").read_text("utf-8"),
    )
    return text.encode("utf-8", "replace")


def _captions(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return the title and the caption of each plot."""
    if facts.whole is None:
        return _CAPTIONS | _BUNDLE_ALONE
    if facts.planned is None:
        return _CAPTIONS | {"memory": (_CAPTIONS["memory"][0], _ONE_MEMORY)}
    return _CAPTIONS


def inline(svg: str, name: str, title: str) -> str:
    """Return a plot as part of a page, with ids of its own and the page's text colour.

    ``<`` and ``>`` are in tags only: matplotlib escapes them in text.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)

    def tag(found: re.Match[str]) -> str:
        text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", found[0]).replace(_INK, "currentColor")
        if not text.startswith("<svg"):
            return text
        text = re.sub(r'\s(width|height)="[^"]*"', "", text)
        return f'{text[:-1]} role="img" aria-label="{html.escape(title)}">'

    return re.sub(r"<[^>]*>", tag, body)


def _figure(name: str, title: str, caption: str, draw: Callable[[Style, Format], bytes]) -> str:
    """Return a plot's section: one drawing for wide screens and one for phones; the page shows the one that fits."""
    drawings = "".join(
        f'<div class="{width}">{inline(svg, f"{name}-{width}", title)}</div>'
        for width, svg in (
            (width, draw(Style(ink=_INK, paper="none", narrow=width == "narrow"), "svg").decode())
            for width in ("broad", "narrow")
        )
    )
    return f'<section class="plot" id="plot-{name}"><h2>{title}</h2>{drawings}<p class="caption">{caption}</p></section>'


def _graph(facts: Facts) -> tuple[str, str]:
    """Return the graph's data as JSON in which no HTML parser finds the script's end, and the graph's caption."""
    nodes, edges = in_runs(facts.nodes, facts.edges)
    data = {
        "nodes": [
            {
                "name": shortened_name(node.name, MOST_CHARACTERS),
                "kind": shortened_name(node.kind, 40),
                "part": node.part,
                "shard": node.shard,
                "notes": [shortened_name(note, 400) for note in node.notes],
                "members": [shortened_name(name, MOST_CHARACTERS) for name in node.members],
            }
            for node in nodes
        ],
        "edges": [{"from": source, "to": target, "label": megabytes(nbytes)} for source, target, nbytes in edges],
        "parts": [shortened_name(step.name, MOST_CHARACTERS) for step in facts.steps],
    }
    what = "step" if facts.kind == "bundle" else "operator"
    caption = f"{len(facts.nodes):,} {what}{'s' if len(facts.nodes) != 1 else ''}"
    if len(nodes) < len(facts.nodes):
        caption += f", more than {MOST_NODES:,}: drawn as {len(nodes):,} runs of neighbours in the schedule"
    caption += ". The graph reads like text: from left to right, then the next row"
    if len(facts.steps) > 1:
        caption += f". Each of the {len(facts.steps):,} partitions has a number (P0, P1, ...) and a colour"
    if any(node.shard for node in nodes):
        caption += ". Shards have a dashed border and their number"
    return msgspec.json.encode(data).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028"), f"{caption}."
