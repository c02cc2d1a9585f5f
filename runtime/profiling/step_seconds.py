"""Say how long a step takes on a class of boards: as measured there, or else by a regression over measured steps.

A planner asks for every step of a bundle: `workload_seconds`. What is known comes from step_profile.json files
(`ProfiledSeconds.of_files`) or from the database (`hyps.runtime.profiling.profile_database`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.profile_file import StepProfileFile
from hyps.runtime.profiling.step_content import StepContent
from hyps.runtime.profiling.step_measurement import StepMeasurement, measurements_of
from hyps.runtime.profiling.step_regression import ProfiledTime, StepRegression
from hyps.runtime.suggestions import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """The seconds of a step, where they are from, and their relative error.

    Of a measurement that is half of the distance between its quartiles, relative to the median; of a regression, the median
    error of steps that it had not seen.
    """

    seconds: float
    source: Literal["measured", "regression"]
    relative_error: float


class ProfiledSeconds:
    """What was measured on some classes of boards. Where ``threads`` is None, the fastest number counts, for each step."""

    def __init__(self, measurements: Iterable[StepMeasurement], threads: int | None = None) -> None:
        self._best: dict[str, dict[str, StepMeasurement]] = {}
        self._regressions: dict[str, StepRegression] = {}
        for each in measurements:
            if threads is None or each.threads == threads:
                known = self._best.setdefault(each.board_class, {})
                before = known.get(each.content.key)
                if before is None or each.run_s.median < before.run_s.median:
                    known[each.content.key] = each

    @classmethod
    def of_files(cls, profiles: Iterable[StepProfileFile], threads: int | None = None) -> Self:
        """Return what step profiles say, each about the class of its board."""
        return cls((each for profile in profiles for each in measurements_of(profile)), threads)

    @property
    def board_classes(self) -> tuple[str, ...]:
        """The classes of boards with any measurement, sorted."""
        return tuple(sorted(self._best))

    def seconds_of(self, step: StepContent, board_class: str) -> StepEstimate:
        """Return the seconds of a step on a board of this class.

        Raises `ProfileError` where nothing was profiled on the class, or too little to predict a step from.
        """
        if board_class not in self._best:
            near = did_you_mean(board_class, self.board_classes)
            remedy = "run 'hyps-run profile' on such a board"
            raise ProfileError(f"no step was profiled on a board of class {board_class!r}", f"{near}{remedy}")
        if found := self._best[board_class].get(step.key):
            run_s = found.run_s
            spread = (run_s.upper - run_s.lower) / 2 / run_s.median if run_s.median else 0.0
            return StepEstimate(seconds=run_s.median, source="measured", relative_error=spread)
        seconds, error = self.regression(board_class).predict(step)
        return StepEstimate(seconds=seconds, source="regression", relative_error=error)

    def regression(self, board_class: str) -> StepRegression:
        """Return the regression over all that was measured on a known class. Raises `ProfileError` if that is too little."""
        if board_class not in self._regressions:
            known = self._best[board_class].values()
            profiled = [ProfiledTime(content=each.content, seconds=each.run_s.median) for each in known]
            self._regressions[board_class] = StepRegression(profiled)
        return self._regressions[board_class]


def with_workers_threads(measured: Iterable[StepMeasurement], planned_threads: int) -> Iterable[StepMeasurement]:
    """Return what was measured of each step on each class with the threads of a worker: the most up to the plan's."""

    def preference(threads: int) -> int:
        return threads if threads <= planned_threads else -threads

    best: dict[tuple[str, str], StepMeasurement] = {}
    for each in measured:
        before = best.setdefault((each.board_class, each.content.key), each)
        if preference(each.threads) > preference(before.threads):
            best[each.board_class, each.content.key] = each
    return best.values()


def workload_seconds(steps: Sequence[StepContent], known: ProfiledSeconds, board_class: str) -> Mapping[int, StepEstimate]:
    """Return the estimate of each step, by its number, on a board of this class. Raises `ProfileError`.

    ``steps`` are those of `hyps.runtime.profiling.step_content.step_contents`.
    """
    return {number: known.seconds_of(step, board_class) for number, step in enumerate(steps)}
