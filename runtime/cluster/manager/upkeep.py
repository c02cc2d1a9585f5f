"""Keep a bundle placed on the workers that are there: place it when nothing is under way, mend when a worker is lost, move.

While jobs are under way their runs of steps stay as they are: the jobs' tensors are those that cross the ends of these runs.
A placement with other runs is for new jobs; it lives next to the old one until the last job of that has ended
(`hyps.runtime.cluster.manager.moving`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.covering import LULL_S, Covering
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.exit_cuts import ExitCuts
from hyps.runtime.cluster.manager.moving import Move
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.requested_move import moved_as_asked
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, assign, repair_placement
from hyps.runtime.errors import BudgetError

#: A placement waits for workers that come or go for this many times ``settle_s`` at most.
_LONGEST_SETTLES = 10


class PlacementUpkeep:
    """The upkeep of one deployment. ``moves_done`` counts moves. Not thread-safe: use it on the manager's thread."""

    def __init__(
        self,
        manifest: Manifest,
        deployment: Deployment,
        workers: WorkerRegistry,
        placer: Placer,
        options: ClusterOptions,
        say: Callable[[str], None],
    ) -> None:
        self._manifest, self._deployment, self._workers = manifest, deployment, workers
        self._placer, self._options, self._say = placer, options, say
        self._covering = Covering(manifest, options.copies, options.margin) if manifest.codes or options.tolerate else None
        self._busy_at = 0.0
        self._move: Move | None = None
        self.moves_done = 0
        #: The cuts behind exits that inferences need.
        self.cuts = ExitCuts(manifest, deployment, workers, placer, say)
        self._placed_on: list[WorkerCapacity] = []
        self._changed_at = self._changing_since = 0.0

    def workers_changed(self) -> None:
        """Note that a worker came, went or changed: the next placement waits until no more follow, but not for long."""
        now = time.monotonic()
        if self._is_settled(now):
            self._changing_since = now
        self._changed_at = now

    def _is_settled(self, now: float) -> bool:
        settle_s = self._options.timeouts.settle_s
        return now - self._changed_at > settle_s or now - self._changing_since > _LONGEST_SETTLES * settle_s

    def can_spare(self, name: str) -> bool:
        """Return whether the other workers could take over all sub-bundles of this one."""
        others = [worker for worker in self._deployment.workers if worker.name != name]
        if self._deployment.placement is None or not others:
            return False
        try:
            assign(self._manifest, self._repaired(self._deployment.placement, others), others)
        except BudgetError:
            return False
        return True

    def resume(self) -> None:
        """Resume the jobs of the journal, and the move that was under way. Raises `OutputError`."""
        older = self._deployment.resume()
        scheduler, held = self._deployment.scheduler, self._deployment.placement
        if scheduler and held and older is not None:
            self._move = Move.resumed(scheduler, self._deployment, held, older)

    def ensure(self) -> None:
        """Place the bundle if nothing is under way and the workers have changed; else mend the placement."""
        homes, workers, scheduler = self._deployment.homes(), self._deployment.workers, self._deployment.scheduler
        settled = self._is_settled(time.monotonic())
        lacks = self._lacks(homes)
        if scheduler and (scheduler.jobs or self._move):
            self._busy_at = time.monotonic()
            if self._move and not lacks:
                self._advance(self._move)
                return
            too_few = self._is_thin(homes)
            names = {worker.name for worker in workers}
            can_wait = not (settled or any(map(self._has_returned, names)))
            if workers and (lacks or (too_few and not can_wait and self._deployment.ordered_to != names)):
                self.mend()
            elif self.cuts.is_asked and not self._move and not lacks:
                self._cut()
            return
        if self.cuts.begin():
            self._placed_on = []
        enough = len(workers) >= (1 if scheduler else self._options.least_workers)
        unchanged = homes and () not in homes and self._placed_on == workers
        goes_on = self._covering and homes and not lacks and time.monotonic() - self._busy_at < LULL_S
        if not enough or not settled or unchanged or goes_on:
            return
        try:
            placement = self._placer.place(workers)
            assign(self._manifest, placement, workers)  # raises before the present placement is given up
            self._deployment.start(placement, workers)
            self._placed_on = workers
            self.cuts.settle()
        except BudgetError as error:
            self.cuts.give_up()
            self._deployment.complain(str(error))

    def mend_if_needed(self) -> None:
        """Give the sub-bundles of lost workers to others, unless codes and copies replace them."""
        homes = self._deployment.homes()
        if self._covering is None or self._deployment.placement is None or self._move or self._lacks(homes):
            self.mend()
        else:
            self._deployment.placement = replace(self._deployment.placement, homes=tuple(homes))
            self._deployment.ordered_to = set()  # a worker that is back before anything else happens must be ordered, too
            self._say("codes and copies replace it")
            for line in self._deployment.coverage:
                self._say(line)

    def mend(self) -> None:
        """Give the sub-bundles of lost workers to others; jobs go on from the tensors that are there."""
        assert self._deployment.placement
        workers, was_moving = self._deployment.workers, self._move is not None
        if self._move and self._move.phase == "loading":
            self._deployment.placement = self._move.give_up()
            self._move = None
            self.cuts.ask_again()
            self._say("the move is given up: a worker is gone or changed")
        elif self._move:
            self._deployment.placement = self._move.active
        if not workers:
            self._deployment.complain("no worker is left; jobs wait for one")
            return
        try:
            repaired = self._repaired(self._deployment.placement, workers)
            if self._covering and not was_moving and [*repaired.homes] == self._deployment.homes():
                self._deployment.ordered_to = {worker.name for worker in workers}  # nobody is free to hold what is lost
                return
            self._deployment.order(repaired, workers)
            if self._move:
                self._move.mended(self._deployment.placement)
            self._placed_on = []  # when nothing is under way, a better placement follows, also if the lost worker is back
        except BudgetError as error:
            self._deployment.complain(str(error))

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a worker's sub-bundles away and give it no more, or with ``drained`` False allow it some again."""
        (self._workers.drained.add if drained else self._workers.drained.discard)(name)
        self.workers_changed()
        if self._deployment.scheduler and self._deployment.scheduler.jobs and drained:
            self.mend()

    def move(self, homes: Mapping[int, Sequence[str]]) -> None:
        """Move sub-bundles, by their numbers, to the workers named; the runs of steps stay. Raises `BudgetError`."""
        workers = self._deployment.workers
        if self._deployment.placement is None or self._deployment.scheduler is None:
            raise BudgetError("nothing is placed yet; start a worker")
        if self._move:
            raise BudgetError("sub-bundles move already; try again when they have")
        moved = moved_as_asked(self._manifest, self._deployment.placement, homes, workers)
        assign(self._manifest, moved, workers)
        self._deployment.order(moved, workers)
        self._placed_on = workers

    def begin_move(self, target: Placement) -> None:
        """Begin to compute new jobs by another placement. Raises `BudgetError` if both do not fit side by side."""
        assert self._deployment.scheduler
        assert self._deployment.placement
        workers = self._deployment.workers
        assign(self._manifest, target, workers)
        self._move = Move(self._deployment.scheduler, self._deployment, self._deployment.placement, target)
        self._placed_on = workers

    def _cut(self) -> None:
        """Move to runs that are cut as asked, while jobs are under way."""
        try:
            self.begin_move(self._placer.place(self._deployment.workers))
            self.cuts.loading()
        except BudgetError as error:
            self.cuts.give_up()
            self._deployment.complain(str(error))

    @property
    def move_phase(self) -> str | None:
        """The phase of the move that is under way, or None."""
        return self._move.phase if self._move else None

    def place_anew(self) -> None:
        """Forget what `move` asked for: place by the workers' capacities as soon as nothing is under way."""
        self._placed_on = []

    def _advance(self, move: Move) -> None:
        phase = move.phase
        try:
            move.advance()
        except BudgetError as error:
            self._deployment.complain(str(error))
            self.mend()
            return
        if move.phase == "draining" != phase:
            seconds = time.monotonic() - move.began
            self.cuts.settle()
            self._say(f"new jobs take the new runs of steps, after {seconds:.1f} s; older jobs end under theirs")
        if move.is_over:
            self._move = None
            self.moves_done += 1
            self._say(f"the move is done, after {time.monotonic() - move.began:.1f} s")

    def _lacks(self, homes: Sequence[tuple[str, ...]]) -> bool:
        if self._covering and self._deployment.placement and homes:
            return self._covering.lacks(self._deployment.placement, homes, exact=self._has_exact_jobs)
        return () in homes

    @property
    def _has_exact_jobs(self) -> bool:
        return self._deployment.scheduler is not None and self._deployment.scheduler.has_exact_jobs

    def _has_returned(self, name: str) -> bool:
        """Return whether a worker was lost and is back with the sub-bundles of its last orders."""
        scheduler = self._deployment.scheduler
        return scheduler is not None and not scheduler.replicas.sub_bundles_of(name) and self._workers.holds_orders(name)

    def _is_thin(self, homes: Sequence[tuple[str, ...]]) -> bool:
        if self._covering and self._deployment.placement:
            return self._covering.is_thin(self._deployment.placement, homes)
        return any(len(each) < self._options.copies for each in homes)

    def _repaired(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> Placement:
        if self._covering:
            return self._covering.repair(
                placement, workers, self._placer.times.seconds_on(workers), exact=self._has_exact_jobs
            )
        return repair_placement(self._manifest, placement, workers, self._options.copies)
