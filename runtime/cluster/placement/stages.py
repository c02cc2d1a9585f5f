"""Turn a planner's stages into a placement on workers, and a placement into stages, to be evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.planning.problem import PipelineStage, Stages
from hyps.runtime.errors import BudgetError


def placement_of(stages: Stages) -> Placement:
    """Return the placement: a run of steps for each stage, and of a share of one for each part that is consecutive."""
    rows: list[tuple[range, tuple[str, ...], str]] = []
    dealt: set[range] = set()
    for stage in stages:
        if stage.sharing == "shards":
            for board, share in zip(stage.boards, stage.shares, strict=True):
                rows += [(run, (board,), stage.reason) for run in consecutive_runs(share)]
            continue
        rows.append((stage.steps, stage.boards, stage.reason))
        if stage.sharing == "replicas":
            dealt.add(stage.steps)
    rows.sort(key=lambda row: row[0].start)
    return Placement(
        runs=tuple(run for run, _, _ in rows),
        homes=tuple(homes for _, homes, _ in rows),
        reasons=tuple(reason for _, _, reason in rows),
        dealt=frozenset(dealt),
    )


def consecutive_runs(steps: Sequence[int]) -> list[range]:
    """Return the runs that steps, given by their numbers in order, consist of."""
    runs: list[range] = []
    for index in steps:
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs


def stages_as_placed(manifest: Manifest, placement: Placement) -> Stages:
    """Return the stages of a placement whose runs hold every step once; runs that need nothing of each other are shards.

    Raises `BudgetError` for a run that no worker holds.
    """
    stages: list[PipelineStage] = []
    shares: dict[str, list[int]] = {}
    made: set[str] = set()
    for run, homes in zip(placement.runs, placement.homes, strict=True):
        if not homes:
            raise BudgetError(f"no worker holds the steps from {manifest.steps[run.start].name}")
        steps = [manifest.steps[index] for index in run]
        if shares and (len(homes) > 1 or made.intersection(name for step in steps for name in step.inputs)):
            stages.append(_side_by_side(shares))
            shares, made = {}, set()
        if len(homes) > 1:
            stages.append(PipelineStage(steps=run, boards=homes, sharing="replicas" if run in placement.dealt else "copies"))
        else:
            shares.setdefault(homes[0], []).extend(run)
            made.update(name for step in steps for name in step.outputs)
    if shares:
        stages.append(_side_by_side(shares))
    return tuple(stages)


def _side_by_side(shares: dict[str, list[int]]) -> PipelineStage:
    steps = sorted(index for share in shares.values() for index in share)
    run = range(steps[0], steps[-1] + 1)
    if len(shares) == 1:
        return PipelineStage(steps=run, boards=(*shares,))
    parts = tuple(tuple(sorted(share)) for share in shares.values())
    return PipelineStage(steps=run, boards=(*shares,), sharing="shards", shares=parts)
