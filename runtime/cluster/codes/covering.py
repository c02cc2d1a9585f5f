"""Mend what must survive losses, for a manager: coded groups, and copies of everything else."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.bundle.coded_groups import run_groups, unserved
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.coded_placement import repair_coded
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.placement.problem import SecondsOnWorker

#: A cluster that lost a board and goes on without it is placed anew after so many seconds without a job: until then, loading
#: would only make a stream wait.
LULL_S = 5.0


class Covering:
    """The placements of one bundle that survive losses; what is no shard of a coded group is on ``copies`` workers.

    ``margin``: a coded group needs so many shards more than it has (`CodedGroup`). While a job wants an ``exact`` result,
    every shard has a worker.
    """

    def __init__(self, manifest: Manifest, copies: int, margin: int = 0) -> None:
        self._manifest, self._copies, self._margin = manifest, copies, margin

    def repair(
        self,
        placement: Placement,
        workers: Sequence[WorkerCapacity],
        seconds: SecondsOnWorker | None = None,
        *,
        exact: bool = False,
    ) -> Placement:
        """Give what is needed of lost workers' sub-bundles to others, the rest to idle ones. Raises `BudgetError`."""
        return repair_coded(
            self._manifest, placement, workers, self._copies, seconds, spare_only=True, margin=self._margin, exact=exact
        )

    def lacks(self, placement: Placement, homes: Sequence[Sequence[str]], *, exact: bool = False) -> bool:
        """Return whether jobs cannot be computed by these homes of the placement's runs."""
        groups = run_groups(self._manifest, placement.runs, self._margin)
        return bool(unserved(range(len(homes)), groups, lambda place: bool(homes[place]), exact=exact))

    def is_thin(self, placement: Placement, homes: Sequence[Sequence[str]]) -> bool:
        """Return whether a shard has no home, or another run too few."""
        groups = run_groups(self._manifest, placement.runs)
        coded = {place for group in groups for place in group.members}
        return any(len(each) < (1 if place in coded else self._copies) for place, each in enumerate(homes))
