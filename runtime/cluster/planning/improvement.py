"""Improve a placement by small changes, judged by its evaluation, where no exact planner is tractable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Stages

#: The numbers of steps by which the border between two stages moves.
_SHIFTS = (1, -1, 2, -2, 4, -4, 8, -8)

ObjectiveKey = tuple[float, ...]


def improved(
    stages: Stages,
    fleet: Fleet,
    evaluated: Callable[[Stages], Evaluation | None],
    key: Callable[[Evaluation], ObjectiveKey],
    most_boards: int,
    most_tries: int,
) -> Stages:
    """Return the placement after changes that each made its ``key`` smaller; stop after ``most_tries`` evaluations."""
    figures = evaluated(stages)
    tries = 0
    while figures is not None:
        for changed in _changes(stages, fleet, figures, most_boards):
            found = evaluated(changed)
            tries += 1
            if found is not None and key(found) < key(figures):
                stages, figures = changed, found
                break
            if tries >= most_tries:
                return stages
        else:
            return stages
    return stages


def _changes(stages: Stages, fleet: Fleet, figures: Evaluation, most_boards: int) -> Iterator[Stages]:
    used = {name for stage in stages for name in stage.boards}
    free = [board.name for board in fleet.boards if board.name not in used]
    slow = figures.slowest if isinstance(figures.slowest, int) else 0
    near = sorted(range(len(stages)), key=lambda place: abs(place - slow))
    for place in near:
        yield from _shifted(stages, place)
    if free and len(used) < most_boards:
        yield from _enlarged(stages, slow, free)
    for place in near:
        yield from _with_other_boards(stages, place, free)
    for place in near:
        yield from _reduced(stages, place)


def _shifted(stages: Stages, place: int) -> Iterator[Stages]:
    """Yield the placements with another border after a stage."""
    if place + 1 == len(stages):
        return
    one, other = stages[place : place + 2]
    for shift in _SHIFTS:
        border = one.steps.stop + shift
        if one.steps.start < border < other.steps.stop and not one.shares and not other.shares:
            moved = replace(one, steps=range(one.steps.start, border)), replace(other, steps=range(border, other.steps.stop))
            yield (*stages[:place], *moved, *stages[place + 2 :])


def _enlarged(stages: Stages, place: int, free: list[str]) -> Iterator[Stages]:
    """Yield the placements with one board more for a stage: a replica, or a part of its steps."""
    stage = stages[place]
    for name in free:
        if not stage.shares:
            yield _with(stages, place, replace(stage, boards=(*stage.boards, name), sharing="replicas"))
        if len(stage.steps) > 1:
            border = (stage.steps.start + stage.steps.stop) // 2
            first = PipelineStage(steps=range(stage.steps.start, border), boards=(name,))
            second = PipelineStage(steps=range(border, stage.steps.stop), boards=stage.boards, sharing=stage.sharing)
            if not stage.shares:
                yield _with(stages, place, first, second)
            alone = PipelineStage(steps=range(border, stage.steps.stop), boards=stage.boards[:1])
            yield _with(stages, place, replace(first, boards=stage.boards[:1]), replace(alone, boards=(name,)))


def _with_other_boards(stages: Stages, place: int, free: list[str]) -> Iterator[Stages]:
    """Yield the placements with a board of a stage replaced by a free one, or exchanged with another stage's."""
    stage = stages[place]
    for at, name in itertools.product(range(len(stage.boards)), free):
        yield _with(stages, place, replace(stage, boards=(*stage.boards[:at], name, *stage.boards[at + 1 :])))
    for other in range(place + 1, len(stages)):
        for one, two in itertools.product(stage.boards, stages[other].boards):
            exchanged = {one: two, two: one}
            yield tuple(replace(each, boards=tuple(exchanged.get(name, name) for name in each.boards)) for each in stages)


def _reduced(stages: Stages, place: int) -> Iterator[Stages]:
    """Yield the placements with a replica less, and with a stage and the next on the boards of one of them."""
    stage = stages[place]
    if stage.sharing == "replicas":
        for name in stage.boards:
            left = tuple(each for each in stage.boards if each != name)
            yield _with(stages, place, replace(stage, boards=left, sharing="alone" if len(left) == 1 else "replicas"))
    if place + 1 < len(stages):
        steps = range(stage.steps.start, stages[place + 1].steps.stop)
        for each in (stage, stages[place + 1]):
            if not each.shares:
                yield (*stages[:place], replace(each, steps=steps), *stages[place + 2 :])


def _with(stages: Stages, place: int, *instead: PipelineStage) -> Stages:
    return (*stages[:place], *instead, *stages[place + 1 :])
