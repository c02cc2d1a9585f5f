"""Say how long a bundle's steps take on each class of boards, and how that is known.

What was measured of a step on such a board comes first, then a regression over what was measured of other steps there
(`hyps.runtime.profiling.step_regression`). Where neither is there, a step takes its multiply-adds at the class's rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.planning.fleets import PlannedFleet
from hyps.runtime.cluster.planning.step_cost import step_cost
from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.step_content import StepContent
from hyps.runtime.profiling.step_measurement import StepMeasurement
from hyps.runtime.profiling.step_seconds import ProfiledSeconds, StepEstimate, with_workers_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTimes:
    """The seconds of every step on one class of boards, in order, and how many of them are known in which way.

    ``board_class`` is the boards file's, ``profiled_as`` what step profiles call it. ``regression_error`` is the largest
    median relative error that is stated for one of the predictions, None without any.
    """

    board_class: str
    profiled_as: str
    seconds: tuple[float, ...]
    measured: int
    by_regression: int
    by_rate: int
    regression_error: float | None


def rated_times(manifest: Manifest, planned: PlannedFleet) -> tuple[ClassTimes, ...]:
    """Return the times of all classes by their rates alone."""
    return tuple(_class_times(manifest, planned, name, [None] * len(manifest.steps)) for name in planned.macs_per_s)


def profiled_times(
    manifest: Manifest, planned: PlannedFleet, contents: Sequence[StepContent], measured: Iterable[StepMeasurement]
) -> tuple[ClassTimes, ...]:
    """Return the times of all classes. ``contents`` are the bundle's steps (`step_contents`).

    A step takes what it took with the number of threads that a worker uses: the most up to the plan's. Of several
    ``measured`` times with that number the first counts. Raises `ProfileError` if no class of the boards was profiled.
    """
    known = ProfiledSeconds(with_workers_threads(measured, manifest.target.threads))
    if not set(known.board_classes) & set(planned.profiled_as.values()):
        raise ProfileError(*_no_class(known.board_classes))
    found = []
    for name, profiled_as in planned.profiled_as.items():
        estimates = [_estimate(known, each, profiled_as) for each in contents]
        found.append(_class_times(manifest, planned, name, estimates))
    return tuple(found)


def _no_class(profiled: Sequence[str]) -> tuple[str, str]:
    if not profiled:
        return "nothing was profiled yet", "run 'hyps-run profile' on a board of each kind"
    names = "; ".join(profiled)
    return (
        f"the boards file has no boards of a class that was profiled: {names}",
        f'write class = "{profiled[0]}" in the entry of such boards',
    )


def _estimate(known: ProfiledSeconds, step: StepContent, profiled_as: str) -> StepEstimate | None:
    try:
        return known.seconds_of(step, profiled_as)
    except ProfileError:  # of this class nothing was profiled, or too little for a regression
        return None


def _class_times(
    manifest: Manifest, planned: PlannedFleet, name: str, estimates: Sequence[StepEstimate | None]
) -> ClassTimes:
    rate = planned.macs_per_s[name]
    predicted = [each for each in estimates if each and each.source == "regression"]
    return ClassTimes(
        board_class=name,
        profiled_as=planned.profiled_as[name],
        seconds=tuple(
            each.seconds if each else step_cost(manifest, step) / rate
            for step, each in zip(manifest.steps, estimates, strict=True)
        ),
        measured=sum(each is not None and each.source == "measured" for each in estimates),
        by_regression=len(predicted),
        by_rate=sum(each is None for each in estimates),
        regression_error=max((each.relative_error for each in predicted), default=None),
    )
