"""The manager's plan: which worker holds which share, made anew when nothing is under way, mended when a worker is gone.

While jobs are under way the runs of steps stay what they are: their tensors are those that cross these runs' ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from hyps.runtime.cluster.crew import Crew
from hyps.runtime.cluster.flow import Graph
from hyps.runtime.cluster.journal import Journal
from hyps.runtime.cluster.placement import Placement, assign, place, replace
from hyps.runtime.cluster.scheduler import MOST_ATTEMPTS, Scheduler
from hyps.runtime.errors import BudgetError, OutputError
from hyps.runtime.manifest import Manifest

log = logging.getLogger(__name__)


class Planning:
    """``scheduler`` is None until the first plan."""

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        journal: Journal,
        crew: Crew,
        *,
        least_workers: int,
        settle_s: float,
        lease_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.scheduler: Scheduler | None = None
        self._manifest, self._bundle_sha256, self._journal, self._crew = manifest, bundle_sha256, journal, crew
        self._least_workers, self._settle_s, self._lease_s, self._say = least_workers, settle_s, lease_s, say
        self._placement: Placement | None = None
        self._planned_on: set[str] = set()
        self._changed_at, self._complaint = 0.0, ""

    def changed(self) -> None:
        """Workers have come or gone: others may follow, and are waited for."""
        self._changed_at = time.monotonic()

    def resume(self) -> None:
        """Take the jobs that the journal holds up again; their shares are numbered by the runs it remembers."""
        plan = self._journal.plan()
        open_jobs = self._journal.open_jobs()
        if plan is None or plan[0] != self._bundle_sha256:
            if open_jobs:
                raise OutputError(
                    f"the journal holds {len(open_jobs)} jobs of another bundle; give another --journal, or finish them"
                )
            return
        placed = msgspec.json.decode(plan[1], type=list[tuple[int, int, str]])
        runs = tuple(range(start, stop) for start, stop, _ in placed)
        self.scheduler = self._new_scheduler(runs)
        homes = tuple(home for _, _, home in placed)
        self._placement = Placement(runs=runs, homes=homes, reasons=("as before",) * len(runs))
        for record in open_jobs:
            job = self.scheduler.add(record.job, record.client, record.tensors, record.shares)
            if job.flow.finished:
                self.scheduler.remove(record.job)
                self._journal.finish(record.job, "done")
        if self.scheduler.jobs:
            self._say(f"jobs that go on: {len(self.scheduler.jobs)}")

    def ensure(self) -> None:
        """Place the bundle anew where nothing is under way and workers have come or gone; else mend what there is."""
        if self.scheduler and self.scheduler.jobs:
            if None in self.scheduler.homes and self._crew.online:
                self.mend()
            return
        offers = self._crew.offers()
        settled = time.monotonic() - self._changed_at > self._settle_s
        whole = self.scheduler is not None and None not in self.scheduler.homes
        same = self._planned_on == {each.name for each in offers}
        if len(offers) < self._least_workers or not settled or (whole and same):
            return
        try:
            placement = place(self._manifest, offers)
            assign(self._manifest, placement, offers)  # before anything is given up for it
            self.scheduler = self._new_scheduler(placement.runs)
            self._order(placement)
            self._planned_on = {each.name for each in offers}
        except BudgetError as error:
            self._complain(str(error))

    def _new_scheduler(self, runs: Sequence[range]) -> Scheduler:
        first_attempt = self._journal.count() * 2 * MOST_ATTEMPTS
        return Scheduler(Graph(self._manifest, runs), lease_s=self._lease_s, first_attempt=first_attempt)

    def mend(self) -> None:
        """Give what lost its worker to others; jobs go on from the tensors that are there."""
        assert self._placement
        offers = self._crew.offers()
        if not offers:
            self._complain("no worker is left; jobs wait for one")
            return
        try:
            self._order(replace(self._manifest, self._placement, offers))
        except BudgetError as error:
            self._complain(str(error))

    def _order(self, placement: Placement) -> None:
        assert self.scheduler
        self._crew.order(placement)
        self._placement = placement
        placed = [(run.start, run.stop, home) for run, home in zip(placement.runs, placement.homes, strict=True)]
        self._journal.set_plan(self._bundle_sha256, msgspec.json.encode(placed).decode())
        self.scheduler.place(dict(enumerate(placement.homes)))
        for line in self._crew.lines(placement):
            self._say(line)

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            log.warning("%s", reason)
