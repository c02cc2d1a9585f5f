"""Combine placements whose runs of steps differ, while jobs of both are under way: two generations side by side.

A run that both placements have is one sub-bundle with one number, so that moving the rest does not disturb it. A worker
holds the sub-bundles of both generations within its memory: less of their weights stays in memory meanwhile
(`hyps.runtime.bundle.sub_bundle.sub_bundles`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import msgspec

from hyps.runtime.cluster.placement.placement import Placement


class PlacedRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sub-bundle in the journal: its number, its steps ``start`` to ``stop`` - 1, and its workers.

    The workers of a ``dealt`` one share its inputs.
    """

    number: int
    start: int
    stop: int
    homes: tuple[str, ...]
    dealt: bool = False


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The placement that the journal keeps: all sub-bundles, and their numbers by generation.

    New jobs belong to the generation ``current``.
    """

    runs: tuple[PlacedRun, ...]
    generations: dict[int, tuple[int, ...]]
    current: int


def encode_plan(held: Placement, generations: dict[int, tuple[int, ...]], current: int) -> str:
    """Return the text that the journal keeps."""
    runs = tuple(
        PlacedRun(number=number, start=run.start, stop=run.stop, homes=homes, dealt=run in held.dealt)
        for number, run, homes in zip(held.numbers, held.runs, held.homes, strict=True)
    )
    return msgspec.json.encode(PlanRecord(runs=runs, generations=generations, current=current)).decode()


def decode_plan(text: str) -> tuple[Placement, PlanRecord]:
    """Return what the journal kept."""
    record = msgspec.json.decode(text, type=PlanRecord)
    runs = tuple(range(each.start, each.stop) for each in record.runs)
    held = Placement(
        runs=runs,
        homes=tuple(each.homes for each in record.runs),
        reasons=("as before",) * len(runs),
        dealt=frozenset(run for run, each in zip(runs, record.runs, strict=True) if each.dealt),
        numbers=tuple(each.number for each in record.runs),
    )
    return held, record


def renumbered(target: Placement, held: Placement) -> Placement:
    """Return a placement whose runs have the numbers that they have in another, and new ones otherwise."""
    known = dict(zip(held.runs, held.numbers, strict=True))
    new = iter(range(max(held.numbers) + 1, max(held.numbers) + 1 + len(target.runs)))
    return replace(target, numbers=tuple(known[run] if run in known else next(new) for run in target.runs))


def side_by_side(old: Placement, new: Placement, workers: Collection[str]) -> Placement:
    """Return what is held of two numbered placements when these ``workers`` have their new sub-bundles, too.

    The homes of a run that both have once share its inputs meanwhile: each of them may get any.
    """
    homes = {number: list(names) for number, names in zip(old.numbers, old.homes, strict=True)}
    runs = dict(zip(old.numbers, old.runs, strict=True))
    reasons = dict(zip(old.numbers, old.reasons, strict=True))
    for number, run, names, reason in zip(new.numbers, new.runs, new.homes, new.reasons, strict=True):
        runs.setdefault(number, run)
        reasons.setdefault(number, reason)
        known = homes.setdefault(number, [])
        known.extend(name for name in names if name in workers and name not in known)
    single = [{run for run, names in zip(each.runs, each.homes, strict=True) if len(names) < 2} for each in (old, new)]
    return Placement(
        runs=tuple(runs.values()),
        homes=tuple(map(tuple, homes.values())),
        reasons=tuple(reasons.values()),
        dealt=old.dealt | new.dealt | (single[0] & single[1]),
        numbers=tuple(runs),
    )


def restricted(held: Placement, numbers: Sequence[int]) -> Placement:
    """Return the part of a placement that has these numbers, in their order: that of the schedule, which forecasts need."""
    places = [held.numbers.index(number) for number in numbers]
    runs = tuple(held.runs[place] for place in places)
    return Placement(
        runs=runs,
        homes=tuple(held.homes[place] for place in places),
        reasons=tuple(held.reasons[place] for place in places),
        dealt=held.dealt & {*runs},
        numbers=tuple(held.numbers[place] for place in places),
    )


def held_numbers(placement: Placement) -> dict[str, frozenset[int]]:
    """Return the numbers that each worker holds."""
    names = {name for homes in placement.homes for name in homes}
    return {
        name: frozenset(
            number for number, homes in zip(placement.numbers, placement.homes, strict=True) if name in homes
        )
        for name in names
    }  # fmt: skip
