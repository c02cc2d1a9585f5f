"""Find the placements of one manager's bundle, as the operator chose, by what is known of steps, workers and links."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.step_time_model import ProfiledSteps, StepTimeModel
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import JudgedPlacement, judge, place
from hyps.runtime.cluster.placement.coded_placement import place_coded
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.planning.step_cost import step_cost


class Placer:
    """The placements of one bundle. ``times`` are the seconds of its steps, which the rebalancer measures."""

    def __init__(self, manifest: Manifest, options: ClusterOptions, profiled: ProfiledSteps = lambda _: ()) -> None:
        self._manifest, self._options = manifest, options
        self.times = StepTimeModel([step_cost(manifest, step) for step in manifest.steps], profiled)

    def place(self, workers: Sequence[WorkerCapacity]) -> Placement:
        """Return the best placement of all steps. Raises `BudgetError`."""
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
