"""Find the placements of one manager's bundle, as the operator chose, by what is known of steps, workers and links."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.step_time_model import ProfiledSteps, StepTimeModel
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import JudgedPlacement, judge, place
from hyps.runtime.cluster.placement.coded_placement import place_coded
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.planning.step_cost import step_cost

#: Returns the seconds of steps with which a worker of a class of boards answered lately, by the steps' numbers.
AnsweredBefore = Callable[[str, str], Mapping[int, float]]


class Placer:
    """The placements of one bundle. ``times`` are the seconds of its steps, which the rebalancer measures.

    ``answered`` says what an earlier manager learned of workers, so that a slow one is slow for this one from the start.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: ClusterOptions,
        profiled: ProfiledSteps = lambda _: (),
        answered: AnsweredBefore = lambda *_: {},
    ) -> None:
        self._manifest, self._options, self._answered = manifest, options, answered
        self._known: set[str] = set()
        self.times = StepTimeModel([step_cost(manifest, step) for step in manifest.steps], profiled)

    def place(self, workers: Sequence[WorkerCapacity]) -> Placement:
        """Return the best placement of all steps. Raises `BudgetError`."""
        self._recall(workers)
        seconds = self.times.seconds_on(workers)
        if self._manifest.codes:
            return place_coded(self._manifest, workers, self._options.copies, seconds, self._options.objective)
        return place(
            self._manifest,
            workers,
            copies=self._options.copies,
            shares_inputs=self._options.placement == "best",
            objective=self._options.objective,
            seconds=seconds,
        )

    def judge(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> JudgedPlacement:
        """Return a placement with its figures. Raises `BudgetError` if it does not fit the workers."""
        return judge(self._manifest, placement, workers, self.times.seconds_on(workers))

    def speeds(self, workers: Sequence[WorkerCapacity]) -> dict[str, float]:
        """Return how often a second each worker could compute all steps, by name."""
        seconds = self.times.seconds_on(workers)
        return {worker.name: 1 / sum(seconds(worker)) for worker in workers}

    def _recall(self, workers: Sequence[WorkerCapacity]) -> None:
        """Take over what workers that this manager has not placed on yet answered to an earlier one."""
        new = [worker for worker in workers if worker.name not in self._known]
        self._known.update(worker.name for worker in new)
        found = {each.name: self._answered(each.name, each.board_class) for each in new if each.board_class is not None}
        if any(found.values()):
            self.times.learn(found, workers, time.monotonic())
