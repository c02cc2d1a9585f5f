"""``hypsc report``'s file: one HTML page with everything in it, which opens from a disk and asks for nothing.

Every name comes from the user's model: text is escaped on its way into the page, and the script writes text, never markup.
"""

from __future__ import annotations

import html
import re
from importlib.resources import files
from string import Template

import msgspec

from hyps.compiler.report.facts import Facts
from hyps.compiler.report.graph_runs import MOST_NODES, in_runs
from hyps.compiler.report.plots import Style, plots
from hyps.compiler.report.run_profile import Measurements
from hyps.compiler.report.tables import escaped, shortened_name, tables
from hyps.runtime.units import megabytes

#: The colour that stands for that of the page's text in the plots.
_INK = "#010203"
_CAPTIONS = {
    "memory": (
        "Memory over the schedule",
        "What is predicted to be resident while each operator runs. Dashed: the budget of the process, the same in both.",
    ),
    "layers": (
        "Output size of each layer, and where to cut",
        "What each layer puts out, with the places to cut; as in figure 4.4 of Kaboubi's thesis, least behind poolings.",
    ),
    "measured": (
        "Predicted against measured",
        "The predicted peak of each step, and what the process held while it ran: what earlier steps left counts, too.",
    ),
}
_STEP_CAPTIONS = {
    "memory": (
        "Memory over the schedule",
        "What is predicted to be resident while each step runs. Dashed: the budget of the whole process. The curve of the "
        "whole model is missing, as this bundle does not tell of it: compile it again, or report the model itself.",
    ),
    "layers": ("Output size of each step", "What each step puts out; behind each, the bundle is cut."),
}


def page(facts: Facts, measured: Measurements | None = None) -> bytes:
    """The page as UTF-8. The same facts give the same bytes."""
    parts = files("hyps.compiler.report.data")
    captions = _CAPTIONS if facts.whole else _CAPTIONS | _STEP_CAPTIONS
    figures = [
        _figure(name, *captions[name], draw(Style(ink=_INK, paper="none"), "svg").decode())
        for name, draw in plots(facts, measured).items()
    ]
    data, caption = _graph(facts)
    text = Template(parts.joinpath("page.html").read_text("utf-8")).substitute(
        title=escaped(facts.title, 80),
        kind=facts.kind,
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


def inline(svg: str, name: str, title: str) -> str:
    """A plot as part of a page: ids of its own, and the page's text colour. Text has no ``<`` or ``>`` but in tags."""
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


def _figure(name: str, title: str, caption: str, svg: str) -> str:
    drawing = inline(svg, name, title)
    framed = f'<div class="drawing" tabindex="0" role="region" aria-label="{title}">{drawing}</div>'
    return f'<section class="plot" id="plot-{name}"><h2>{title}</h2>{framed}<p class="caption">{caption}</p></section>'


def _graph(facts: Facts) -> tuple[str, str]:
    """The data of the graph as JSON that no HTML parser takes for the script's end; and what is said of it."""
    nodes, edges = in_runs(facts.nodes, facts.edges)
    data = {
        "nodes": [
            {
                "name": shortened_name(node.name),
                "kind": shortened_name(node.kind, 40),
                "part": node.part,
                "shard": node.shard,
                "notes": [shortened_name(note, 400) for note in node.notes],
                "members": [shortened_name(name) for name in node.members],
            }
            for node in nodes
        ],
        "edges": [{"from": source, "to": target, "label": megabytes(nbytes)} for source, target, nbytes in edges],
        "parts": [shortened_name(step.name) for step in facts.steps],
    }
    what = "steps" if facts.kind == "bundle" else "operators"
    caption = f"{len(facts.nodes):,} {what}"
    if len(nodes) < len(facts.nodes):
        caption += f", more than {MOST_NODES:,}: drawn as {len(nodes):,} runs of neighbours in the schedule"
    if facts.steps:
        many = "partitions, each with its number and colour" if len(facts.steps) > 1 else "partition"
        caption += f"; {len(facts.steps)} {many}"
    if any(node.shard for node in nodes):
        caption += "; shards have a dashed border and say which they are"
    return msgspec.json.encode(data).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028"), f"{caption}."
