"""Tell how many extra boards let any be lost, with codes where a bundle has them, and with copies alone (figure 6.15)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.coverage import CoveragePoint, bundle_stages, coverage_curve
from hyps.runtime.terminal.console import json_text, show
from hyps.runtime.terminal.tables import Column, table


def show_coverage(options: argparse.Namespace, manifest: Manifest) -> None:
    """Print the coverage of a bundle by the number of extra boards: as a table, as JSON, or full coverage alone."""
    stages = bundle_stages(manifest)
    curve = coverage_curve(stages, options.tolerate)
    if options.json:
        document = {"boards": sum(stages), "stages": stages, "losses": options.tolerate, "coverage": curve}
        show([json_text(msgspec.json.format(msgspec.json.encode(document), indent=1)).removesuffix("\n")])
        return
    show(_summary(stages, curve, options.tolerate))
    if options.table:
        show(["", *coverage_table(curve)])


def _summary(stages: Sequence[int], curve: Sequence[CoveragePoint], losses: int) -> Iterator[str]:
    coded = next(point.extra for point in curve if point.coded == 1)
    boards = sum(stages)
    split = sum(count > 1 for count in stages)
    lost = "any board" if losses == 1 else f"any {losses} boards"
    yield (
        f"{boards} boards, one a shard of {split} coded operator{'' if split == 1 else 's'} and each part between; "
        f"so that {lost} may be lost: {coded} more with codes and copies, {curve[-1].extra} more with copies alone"
    )


def coverage_table(curve: Sequence[CoveragePoint]) -> Iterator[str]:
    """Yield a row for each number of extra boards: the part of all boards that may be lost."""
    columns = (
        Column("extra boards", numeric=True),
        Column("copies", numeric=True),
        Column("codes and copies", numeric=True),
    )
    return iter(table(columns, ([str(each.extra), f"{each.replicated:.0%}", f"{each.coded:.0%}"] for each in curve)))
