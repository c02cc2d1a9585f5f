"""Make the page of ``hypsc exits fit --page``: policies by accuracy, energy and time, and where inferences end.

One HTML file that holds everything. Names come from the user's model: text is escaped on its way into the page, and the
script writes text, never markup.
"""

from __future__ import annotations

from importlib.resources import files
from string import Template

import msgspec

from hyps.compiler.exits.comparison import PolicyComparison, PolicyPoint
from hyps.compiler.report.tables import escaped


def policy_page(title: str, comparison: PolicyComparison) -> bytes:
    """Return the page in UTF-8; the same comparison gives the same bytes."""
    parts = files("hyps.compiler.report.data")
    in_units = comparison.has_units
    energy, time = ("joules", "milliseconds") if in_units else ("part of the whole network's energy", "part of its time")
    heads = ("policy", "accuracy", energy, time, *comparison.exits, "offloaded")
    data = {
        "exits": comparison.exits,
        "points": comparison.points,
        "energy": energy,
        "time": time,
        "time_factor": _time_factor(comparison),
    }
    script_data = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    text = Template(parts.joinpath("policies.html").read_text("utf-8")).substitute(
        title=escaped(title, 80),
        headline=f"Measured on {comparison.inputs:,} inputs. Energy and time are predicted from multiply-adds.",
        style=parts.joinpath("page.css").read_text("utf-8"),
        unit="joules" if in_units else "inferences by the whole network",
        heads="".join(f"<th>{escaped(head, 80)}</th>" for head in heads),
        rows="".join(_row(point, comparison) for point in comparison.points),
        data=script_data,
        script=parts.joinpath("policies.js").read_text("utf-8"),
    )
    return text.encode("utf-8", "replace")


def _time_factor(comparison: PolicyComparison) -> float:
    return 1000.0 if comparison.has_units else 1.0


def _row(point: PolicyPoint, comparison: PolicyComparison) -> str:
    cells = (
        f"{point.kind} {point.setting}".strip(),
        f"{point.accuracy:.2%}",
        f"{point.joules:.4g}",
        f"{point.seconds * _time_factor(comparison):.4g}",
        *(f"{share:.1%}" for share in point.shares),
        f"{point.offloaded:.1%}",
    )
    return "<tr>" + "".join(f"<td>{escaped(cell, 80)}</td>" for cell in cells) + "</tr>"
