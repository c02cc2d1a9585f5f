"""Tell which boards a placement can lose (Hadidi, section 6.3.3): where there are codes, and where there are copies.

A coded group loses no answer as long as no more boards are lost than it has parity shards, a run of steps as long as one of
its copies is left. The manager and the hub are not counted: a placement has one of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.coded_groups import run_groups
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.placement import Placement

#: The most parts that are named one by one.
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakPart:
    """A part of a placement, in words, and the fewest boards whose loss ends it."""

    part: str
    boards: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What a placement can lose: any ``tolerated`` boards; ``parts`` are all parts, the weakest first.

    ``copies`` are the sub-bundles that boards hold, ``replicated`` those of full replication for as many losses.
    """

    boards: tuple[str, ...]
    tolerated: int
    parts: tuple[WeakPart, ...]
    copies: int
    needed: int

    def replicated(self, losses: int) -> int:
        """Return the sub-bundles that boards would hold if each were on one more board than may be lost."""
        return self.needed * (losses + 1)

    def covered(self, losses: int = 1) -> tuple[str, ...]:
        """Return the boards that are in no set of so many boards whose loss ends a part."""
        weak = {name for part in self.parts if len(part.boards) <= losses for name in part.boards}
        return tuple(name for name in self.boards if name not in weak)


def placement_coverage(manifest: Manifest, placement: Placement, margin: int = 0) -> Coverage:
    """Return the coverage of a placement; ``margin``: see `CodedGroup`."""
    groups = run_groups(manifest, placement.runs, margin)
    grouped = {place for group in groups for place in group.members}
    parts = []
    for place, (run, homes) in enumerate(zip(placement.runs, placement.homes, strict=True)):
        if place not in grouped:
            steps = [manifest.steps[index].name for index in run]
            parts.append(WeakPart(part=steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}", boards=homes))
    for group in groups:
        held = Counter(name for place in group.members for name in placement.homes[place])
        left = len(group.parity) - group.margin - sum(not placement.homes[place] for place in group.members)
        boards: list[str] = []
        for name, count in sorted(held.items(), key=lambda each: (-each[1], each[0])):
            if left < 0:
                break
            boards.append(name)
            left -= count
        parts.append(WeakPart(part=group.code.name, boards=tuple(boards)))
    parts.sort(key=lambda part: len(part.boards))
    return Coverage(
        boards=tuple(sorted({name for homes in placement.homes for name in homes})),
        tolerated=max(0, len(parts[0].boards) - 1),
        parts=tuple(parts),
        copies=sum(map(len, placement.homes)),
        needed=len(placement.runs) - sum(len(group.parity) for group in groups),
    )


def coverage_lines(manifest: Manifest, placement: Placement, losses: int, margin: int = 0) -> Iterator[str]:
    """Yield what the operator is told of the boards that may be lost, when ``losses`` are to be tolerated."""
    found = placement_coverage(manifest, placement, margin)
    if found.tolerated > 0:
        yield f"any {_boards(found.tolerated)} may be lost"
    else:
        yield "not every board may be lost"
    weak = [part for part in found.parts if len(part.boards) <= losses]
    for part in weak[:_NAMED]:
        if not part.boards:
            yield f"{part.part} is lost: too few boards are left"
            continue
        names = " and ".join(part.boards)
        together = " together" if len(part.boards) > 1 else ""
        yield f"{names} may not be lost{together}: {part.part} would have to move"
    if len(weak) > _NAMED:
        yield f"... and {len(weak) - _NAMED} more parts of the network"
    groups = run_groups(manifest, placement.runs)
    least = max([losses + 1, *(len(group.members) for group in groups)])
    if len(found.boards) < least:
        have = _boards(len(found.boards))
        yield f"{_boards(least)} are needed so that any {_boards(losses)} may be lost; {have} have steps"
    yield (
        f"boards hold {found.copies} sub-bundles; full replication for {_losses(losses)} would have them hold "
        f"{found.replicated(losses)}"
    )


def _boards(count: int) -> str:
    return "1 board" if count == 1 else f"{count} boards"


def _losses(count: int) -> str:
    return "1 loss" if count == 1 else f"{count} losses"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePoint:
    """How much of a system is covered with so many extra boards: boards that may be lost, as parts of all boards."""

    extra: int
    replicated: float
    coded: float


def bundle_stages(manifest: Manifest) -> tuple[int, ...]:
    """Return the boards of a bundle's largest pipeline: one for each shard of a code, one for each part between codes."""
    coded = {name: code for code in manifest.codes for name in code.tensors}
    stages: list[int] = []
    before: object = None
    for step in manifest.steps:
        code = next((coded[name] for name in step.outputs if name in coded), None)
        if not stages or code is not before:
            stages.append(len(code.shards) if code else 1)
        before = code
    return tuple(stages)


def coverage_curve(stages: Sequence[int], losses: int = 1) -> tuple[CoveragePoint, ...]:
    """Return figure 6.15 for a system: ``stages`` are its boards by layer, more than one where a layer is split.

    ``losses`` extra boards cover all boards of a split layer by a code, or one board by copies. Covered are the boards that
    may be lost, the extra ones among them. What covers most is covered first.
    """
    total = sum(stages)
    coded = sorted((count if count > 1 else 1 for count in stages), reverse=True)
    steps = {True: coded, False: [1] * total}
    most = losses * total
    curves: Mapping[bool, dict[int, float]] = {
        is_coded: {
            extra: (sum(gains[: extra // losses]) + extra // losses * losses) / (total + extra)
            if extra <= losses * len(gains)
            else 1.0
            for extra in range(0, most + 1, losses)
        }
        for is_coded, gains in steps.items()
    }
    return tuple(
        CoveragePoint(extra=extra, replicated=curves[False][extra], coded=curves[True][extra])
        for extra in range(0, most + 1, losses)
    )
