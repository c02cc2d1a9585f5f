"""The manager's plan: which worker holds which share, made anew when nothing is under way, mended when a worker is gone.

While jobs are under way the runs of steps stay what they are: their tensors are those that cross these runs' ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.workers import WorkerRegistry, lines
from hyps.runtime.cluster.placement.forecast import forecast, streamed_bytes
from hyps.runtime.cluster.placement.partitioner import Offer
from hyps.runtime.cluster.placement.placement import Placement, assign, can, place, replace
from hyps.runtime.cluster.scheduling.flow import ShareGraph
from hyps.runtime.cluster.scheduling.scheduler import LEASE_WINDOW, Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BudgetError, OutputError

#: More than a manager makes at one share of a job before it is started again.
_ATTEMPTS = 4096
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What the operator asks for.

    ``replicas`` workers hold each share, and the first answer wins; with ``votes``, as many answers are compared. ``safe``
    workers alone see the model's inputs; None: all may. A share is to be computed within ``lease_s`` seconds.
    With ``pack``, tensors are compressed on their way.
    """

    least_workers: int = 1
    replicas: int = 1
    votes: int = 1
    safe: frozenset[str] | None = None
    settle_s: float = 2.0
    lease_s: float = 120.0
    pack: bool = False

    @property
    def copies(self) -> int:
        """How many workers hold each share."""
        return max(self.replicas, self.votes)


class Deployment:
    """``scheduler`` is None until the first plan; ``complaint`` says why the last one failed, if one did."""

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        journal: Journal,
        crew: WorkerRegistry,
        wishes: ClusterOptions,
        say: Callable[[str], None],
    ) -> None:
        self.scheduler: Scheduler | None = None
        self._manifest, self._bundle_sha256, self._journal, self._crew = manifest, bundle_sha256, journal, crew
        self._wishes, self._say = wishes, say
        self._placement: Placement | None = None
        self._planned_on: list[Offer] = []
        self._ordered_to: set[str] = set()
        self._changed_at, self.complaint = 0.0, ""

    def changed(self) -> None:
        """Workers have come, gone or become others: more may follow, and are waited for."""
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
        placed = msgspec.json.decode(plan[1], type=list[tuple[int, int, tuple[str, ...]]])
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
        homes = self.scheduler.holders.homes if self.scheduler else []
        offers = self._offers()
        settled = time.monotonic() - self._changed_at > self._wishes.settle_s
        names = {each.name for each in offers}
        if self.scheduler and self.scheduler.jobs:
            few = any(len(each) < self._wishes.copies for each in homes)
            if offers and (() in homes or (few and settled and self._ordered_to != names)):
                self.mend()
            return
        if (
            len(offers) < (1 if self.scheduler else self._wishes.least_workers)
            or not settled
            or (homes and () not in homes and self._planned_on == offers)
        ):
            return
        try:
            placement = place(self._manifest, offers, self._wishes.copies)
            assign(self._manifest, placement, offers)  # before anything is given up for it
            self.scheduler = self._new_scheduler(placement.runs)
            self._order(placement, offers)
            self._planned_on = offers
        except BudgetError as error:
            self._complain(str(error))

    def mend(self) -> None:
        """Give what lost its worker to others; jobs go on from the tensors that are there."""
        assert self._placement
        offers = self._offers()
        if not offers:
            self._complain("no worker is left; jobs wait for one")
            return
        try:
            self._order(replace(self._manifest, self._placement, offers, self._wishes.copies), offers)
        except BudgetError as error:
            self._complain(str(error))

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a worker's shares, and give it no more; or let it have some again."""
        (self._crew.drained.add if drained else self._crew.drained.discard)(name)
        self.changed()
        if self.scheduler and self.scheduler.jobs and drained:
            self.mend()

    def move(self, homes: Mapping[int, Sequence[str]]) -> None:
        """Have these workers hold the shares of these numbers; the runs of steps stay. Raises `BudgetError`."""
        offers = self._offers()
        if self._placement is None or self.scheduler is None:
            raise BudgetError("nothing is placed yet; start a worker")
        if unknown := sorted({name for each in homes.values() for name in each} - {offer.name for offer in offers}):
            raise BudgetError(f"{unknown[0]!r} is no worker that may get shares now")
        if strange := sorted(set(homes) - set(range(len(self._placement.runs)))):
            raise BudgetError(f"there is no share {strange[0]}; shares are 0 to {len(self._placement.runs) - 1}")
        if [number for number, names in homes.items() if not names]:
            raise BudgetError("each share needs a worker")
        wanted = [homes.get(number, known) for number, known in enumerate(self._placement.homes)]
        reasons = ["as asked" if number in homes else why for number, why in enumerate(self._placement.reasons)]
        moved = Placement(
            runs=self._placement.runs, homes=tuple(tuple(dict.fromkeys(each)) for each in wanted), reasons=tuple(reasons)
        )
        self._check_rights(moved, offers)
        assign(self._manifest, moved, offers)
        self._order(moved, offers)
        self._planned_on = offers

    def place_anew(self) -> None:
        """Forget what was asked for: place by what the workers have, when nothing is under way."""
        self._planned_on = []

    def _check_rights(self, placement: Placement, offers: Sequence[Offer]) -> None:
        for run, homes in zip(placement.runs, placement.homes, strict=True):
            for offer in offers:
                if offer.name in homes and not can(self._manifest, offer).issuperset(run):
                    step = next(index for index in run if index not in can(self._manifest, offer))
                    raise BudgetError(f"{offer.name} cannot have step {self._manifest.steps[step].name}: it does not fit it")

    def _offers(self) -> list[Offer]:
        return self._crew.offers(self._wishes.safe)

    def _new_scheduler(self, runs: Sequence[range]) -> Scheduler:
        first_attempt = self._journal.count() * _ATTEMPTS
        graph = ShareGraph(self._manifest, runs)
        return Scheduler(graph, lease_s=self._wishes.lease_s, first_attempt=first_attempt, votes=self._wishes.votes)

    def _order(self, placement: Placement, offers: Sequence[Offer]) -> None:
        assert self.scheduler
        parts = self._crew.order(placement, offers)
        self._placement, self._ordered_to = placement, {each.name for each in offers}
        self.complaint = ""
        placed = [(run.start, run.stop, homes) for run, homes in zip(placement.runs, placement.homes, strict=True)]
        self._journal.set_plan(self._bundle_sha256, msgspec.json.encode(placed).decode())
        self.scheduler.holders.place(dict(enumerate(placement.homes)))
        self.scheduler.withdraw()
        self.scheduler.windows = {each.name: LEASE_WINDOW * max(1, each.group) for each in offers}
        groups = {each.name for each in offers if each.group}  # which change their workers' shares, too
        self.scheduler.streaming = frozenset(
            name
            for name, own in parts.items()
            if len(own) > 1 and (name in groups or any(map(streamed_bytes, own.values())))
        )
        for line in lines(self._manifest, placement, parts):
            self._say(line)
        expected = forecast(self._manifest, placement, parts, offers)
        self._say(
            f"expected, with links of 94 Mbit/s: {expected.latency_s:.3f} s an inference, "
            f"{expected.throughput_per_s:.2f} a second in a stream"
        )

    def _complain(self, reason: str) -> None:
        if reason != self.complaint:
            self.complaint = reason
            log.warning("%s", reason)
