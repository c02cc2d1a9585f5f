"""Define the measured times of a step, and take them from step profiles; this module needs no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyps.runtime.profiling.profile_file import ProfiledStep, Quartiles, StepProfileFile
from hyps.runtime.profiling.step_content import StepContent


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMeasurement:
    """The measured times of one step on one class of boards, with one number of threads; all weights are in memory."""

    content: StepContent
    board_class: str
    threads: int
    run_s: Quartiles


def measurements_of(profile: StepProfileFile) -> Iterable[StepMeasurement]:
    """Yield the measurements in a step profile, one for each step and number of threads."""
    for step in profile.steps:
        for times in step.times:
            yield StepMeasurement(
                content=content_of(step), board_class=profile.board_class, threads=times.threads, run_s=times.run_s
            )


def content_of(step: ProfiledStep) -> StepContent:
    """Return the content of a profiled step."""
    return StepContent(
        key=step.key,
        kind=step.kind,
        multiply_adds=step.multiply_adds,
        weight_bytes=step.weight_bytes,
        tensor_bytes=step.tensor_bytes,
        operators=step.operators,
    )


def quartiles(seconds: Sequence[float]) -> Quartiles:
    """Return the quartiles of some measurements, interpolated linearly between the two that are next to each."""
    ordered = sorted(seconds)
    lower, median, upper = (_between(ordered, share * (len(ordered) - 1)) for share in (0.25, 0.5, 0.75))
    return Quartiles(lower=lower, median=max(lower, median), upper=max(lower, median, upper))


def _between(ordered: Sequence[float], place: float) -> float:
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
