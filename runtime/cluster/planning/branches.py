"""Place branches of a network side by side: find its parallel blocks, and share those among boards that make it faster.

A *block* is a run of steps in two or more components, as between a fork and a join; a multi-step branch is a component of
several steps. A board that runs what comes before and after a block, and one of its branches, is in several stages. No
other planner makes such placements: they begin with one stage on one board, and change what makes them better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hyps.runtime.cluster.planning.evaluation import Evaluation
from hyps.runtime.cluster.planning.improvement import ObjectiveKey
from hyps.runtime.cluster.planning.problem import Board, Fleet, PipelineStage, Stages, Workload
from hyps.runtime.cluster.planning.run_table import RunTable
from hyps.runtime.cluster.planning.shares import ParallelRun, components_of

#: The most runs that are looked at for blocks.
_MOST_RUNS = 250_000
#: The most boards that are tried for another branch.
_MOST_BOARDS = 6
#: A block saves at least this part of the computation of all steps.
_LEAST_SAVED = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run, and the seconds that are saved if its components run side by side."""

    start: int
    stop: int
    saved_s: float


def parallel_blocks(table: RunTable, transfer_s: Callable[[float], float]) -> tuple[ParallelRun, ...]:
    """Return the runs without a step in common that save most seconds, in order.

    A block saves all but its longest component, less ``transfer_s`` of the bytes that cross into and out of it.
    """
    steps, crosses = table.workload.steps, table.crossing
    least = [min(step.seconds.values(), default=0.0) for step in steps]
    floor = _LEAST_SAVED * sum(least)
    by_stop: dict[int, list[_Run]] = {}
    for start, stop, saved in _saved_seconds(table.workload, least):
        cost = transfer_s(float(crosses.inputs[start, stop] + crosses.outputs[start, stop]))
        if saved - cost > floor:
            by_stop.setdefault(stop, []).append(_Run(start=start, stop=stop, saved_s=saved - cost - floor))
    best: list[tuple[float, _Run | None]] = [(0.0, None)]
    for stop in range(1, len(steps) + 1):
        best.append((best[-1][0], None))
        for run in by_stop.get(stop, ()):
            if best[run.start][0] + run.saved_s > best[-1][0]:
                best[-1] = best[run.start][0] + run.saved_s, run
    found, stop = list[ParallelRun](), len(steps)
    while stop:
        chosen = best[stop][1]
        if chosen is None:
            stop -= 1
            continue
        components = components_of(table.workload, range(chosen.start, stop))
        found.append(ParallelRun(start=chosen.start, stop=stop, components=components))
        stop = chosen.start
    return tuple(reversed(found))


def has_branches(blocks: Sequence[ParallelRun]) -> bool:
    """Return whether two components of a block have several steps each."""
    return any(sum(len(component) > 1 for component in block.components) > 1 for block in blocks)


def _saved_seconds(workload: Workload, seconds: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """Yield (start, stop, seconds of all but the longest component) of runs of two or more components."""
    makers = {name: number for number, step in enumerate(workload.steps) for name in step.outputs}
    needs = [sorted({makers[name] for name in step.inputs if name in makers}) for step in workload.steps]
    count = len(needs)
    window = max(2, _MOST_RUNS // count)
    for start in range(count):
        parent: dict[int, int] = {}
        weight: dict[int, float] = {}
        total = longest = 0.0
        for number in range(start, min(count, start + window)):
            root, own = number, seconds[number]
            parent[number] = number
            for need in needs[number]:
                if need < start:
                    continue
                other = need
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                if other != root:
                    own += weight.pop(other)
                    parent[other] = root
            weight[root] = own
            total, longest = total + seconds[number], max(longest, own)
            if len(weight) > 1:
                yield start, number + 1, total - longest


def branches_side_by_side(
    stages: Stages,
    workload: Workload,
    boards: Sequence[Board],
    blocks: Sequence[ParallelRun],
    evaluated: Callable[[Stages], Evaluation | None],
    key: Callable[[Evaluation], ObjectiveKey],
    most_boards: int,
) -> Stages:
    """Share blocks among boards, the longest first, wherever that makes a placement's ``key`` smaller; return the last.

    ``boards`` are tried in their order, free ones as long as no more than ``most_boards`` are used.
    """
    figures = evaluated(stages)
    known = {board.name: board for board in boards}
    for block in sorted(blocks, key=lambda each: -_seconds(workload, range(each.start, each.stop))):
        names: tuple[str, ...] = ()
        base = stages
        while figures is not None and len(names) < len(block.components):
            tried = []
            used = {name for stage in stages for name in stage.boards}
            for board in boards:
                if board.name not in used and len(used) >= most_boards:
                    continue
                found = _with_board(base, workload, block, names, board, known)
                if found and (new := evaluated(found[1])) is not None:
                    tried.append((key(new), found, new))
            if not tried:
                break
            reached, found, new = min(tried, key=lambda each: each[0])
            if reached >= key(figures):
                break
            (names, stages), figures = found, new
    return stages


def _with_board(
    stages: Stages,
    workload: Workload,
    block: ParallelRun,
    names: tuple[str, ...],
    board: Board,
    known: Mapping[str, Board],
) -> tuple[tuple[str, ...], Stages] | None:
    """Return the placement with one more board for a block of a stage on one board; None if no such stage has the block."""
    whole = (
        place
        for place, each in enumerate(stages)
        if each.sharing == "alone" and each.steps.start <= block.start and block.stop <= each.steps.stop
    )
    place = next(whole, None)
    if place is None:
        return None
    stage = stages[place]
    owner = stage.boards[0]
    replicas = {name for each in stages if each.sharing == "replicas" for name in each.boards}
    if board.name in replicas:
        return None
    chosen = (*(names or (owner,)), board.name)
    if board.name in chosen[:-1] or owner not in known:
        return None
    shares = _balanced(workload, block, [known[name] for name in chosen])
    if not all(shares):
        return None
    parts = [
        PipelineStage(steps=range(stage.steps.start, block.start), boards=(owner,)),
        PipelineStage(steps=range(block.start, block.stop), boards=chosen, sharing="shards", shares=shares),
        PipelineStage(steps=range(block.stop, stage.steps.stop), boards=(owner,)),
    ]
    return chosen, (*stages[:place], *(part for part in parts if part.steps), *stages[place + 1 :])


def _balanced(workload: Workload, block: ParallelRun, boards: Sequence[Board]) -> tuple[tuple[int, ...], ...]:
    """Return each board's steps: every component goes to the board that ends first with it, the longest first."""
    busy, shares = [0.0] * len(boards), [list[int]() for _ in boards]
    for component in sorted(block.components, key=lambda each: -_seconds(workload, each)):
        ends = [
            done + sum(workload.steps[number].seconds.get(board.board_class, float("inf")) for number in component)
            for done, board in zip(busy, boards, strict=True)
        ]
        place = min(range(len(boards)), key=lambda each: (ends[each], len(shares[each]), each))
        busy[place] = ends[place]
        shares[place] += component
    return tuple(tuple(sorted(share)) for share in shares)


def _seconds(workload: Workload, steps: Sequence[int]) -> float:
    return sum(min(workload.steps[number].seconds.values(), default=0.0) for number in steps)


def tried_boards(workload: Workload, fleet: Fleet, stages: Stages) -> list[Board]:
    """Return the boards worth trying for branches: those of a placement, then the fastest, as many as are tried."""
    used = {name for stage in stages for name in stage.boards}
    whole = {
        name: sum(step.seconds.get(name, float("inf")) for step in workload.steps)
        for name in {board.board_class for board in fleet.boards}
    }
    free = [board for board in fleet.boards if board.name not in used]
    free.sort(key=lambda board: (whole[board.board_class], -board.memory_bytes))
    return [*(board for board in fleet.boards if board.name in used), *free[:_MOST_BOARDS]]


def stages_of(blocks: Sequence[ParallelRun], owners: Sequence[str]) -> Stages:
    """Return the placement in which every step is on its owner, and every component of a block on one board.

    The steps of a block that are on several boards are shards side by side; else, runs of one owner are stages.
    """
    stages: list[PipelineStage] = []

    def add(number: int) -> None:
        last = stages[-1] if stages else None
        if last and last.sharing == "alone" and last.boards == (owners[number],):
            stages[-1] = replace(last, steps=range(last.steps.start, number + 1))
        else:
            stages.append(PipelineStage(steps=range(number, number + 1), boards=(owners[number],)))

    number = 0
    for block in blocks:
        for each in range(number, block.start):
            add(each)
        shares: dict[str, list[int]] = {}
        for component in block.components:
            shares.setdefault(owners[component[0]], []).extend(component)
        if len(shares) == 1:
            for each in range(block.start, block.stop):
                add(each)
        else:
            stages.append(
                PipelineStage(
                    steps=range(block.start, block.stop),
                    boards=tuple(shares),
                    sharing="shards",
                    shares=tuple(tuple(sorted(share)) for share in shares.values()),
                )
            )
        number = block.stop
    for each in range(number, len(owners)):
        add(each)
    return tuple(stages)
