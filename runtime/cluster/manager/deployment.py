"""Decide which worker holds which sub-bundle: place the bundle when nothing is under way, mend when a worker is lost.

While jobs are under way their runs of steps stay as they are: the jobs' tensors are those that cross the ends of these runs.
A placement with other runs is for new jobs; it lives next to the old one until the last job of that has ended
(`hyps.runtime.cluster.manager.moving`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.covering import LULL_S, Covering
from hyps.runtime.cluster.manager.generations import decode_plan, encode_plan
from hyps.runtime.cluster.manager.lease_rules import LeaseRules
from hyps.runtime.cluster.manager.moving import Move
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.requested_move import moved_as_asked
from hyps.runtime.cluster.manager.speeds import Work
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.description import describe_placement
from hyps.runtime.cluster.placement.placement import Placement, assign, repair_placement
from hyps.runtime.cluster.protocol.decoded_note import decode_note
from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BudgetError, OutputError

#: Attempt numbers reserved for one start of a manager: more than it makes at one sub-bundle of a job.
_ATTEMPTS_PER_START = 4096
#: A placement waits for workers that come or go for this many times ``settle_s`` at most.
_LONGEST_SETTLES = 10
_log = logging.getLogger(__name__)


class Deployment:
    """The placement of one manager's bundle on its workers, and the scheduler of its jobs.

    ``scheduler`` is None until the first placement. ``complaint`` is the reason why the last placement failed, or empty.
    ``placement`` is what the jobs under way need. Not thread-safe: use it on the manager's thread.
    """

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        journal: Journal,
        workers: WorkerRegistry,
        placer: Placer,
        options: ClusterOptions,
        say: Callable[[str], None],
    ) -> None:
        self.scheduler: Scheduler | None = None
        self.complaint = ""
        self._manifest, self._bundle_sha256, self._journal = manifest, bundle_sha256, journal
        self._workers, self._placer, self._options, self._say = workers, placer, options, say
        self.placement: Placement | None = None
        self._covering = Covering(manifest, options.copies, options.margin) if manifest.codes or options.tolerate else None
        self._busy_at = 0.0
        self._move: Move | None = None
        self.moves_done = 0
        self._placed_on: list[WorkerCapacity] = []
        self._ordered_to: set[str] = set()
        self._changed_at = self._changing_since = 0.0
        self._lease_rules = LeaseRules(manifest)

    def workers_changed(self) -> None:
        """Note that a worker came, went or changed: the next placement waits until no more follow, but not for long."""
        now = time.monotonic()
        if self._is_settled(now):
            self._changing_since = now
        self._changed_at = now

    def _is_settled(self, now: float) -> bool:
        settle_s = self._options.timeouts.settle_s
        return now - self._changed_at > settle_s or now - self._changing_since > _LONGEST_SETTLES * settle_s

    def work(self, worker: str, sub_bundle: int) -> Work:
        """Return what a worker has to do for one input of a sub-bundle that it holds."""
        assert self.scheduler
        return self._lease_rules.work(self.scheduler, worker, sub_bundle)

    def run_of(self, worker: str, sub_bundle: int) -> tuple[range | None, float]:
        """Return a sub-bundle's steps, None if there is none, and the seconds in which the worker reads weights for it."""
        run = self.scheduler.graph.runs.get(sub_bundle) if self.scheduler else None
        return run, self._lease_rules.read_s(worker, sub_bundle)

    def can_spare(self, name: str) -> bool:
        """Return whether the other workers could take over all sub-bundles of this one."""
        others = [worker for worker in self._usable_workers() if worker.name != name]
        if self.placement is None or not others:
            return False
        try:
            assign(self._manifest, self._repaired(self.placement, others), others)
        except BudgetError:
            return False
        return True

    def resume(self) -> None:
        """Resume the jobs of the journal, with the runs of steps that it remembers.

        Raises `OutputError` if these are jobs of another bundle.
        """
        plan = self._journal.plan()
        open_jobs = self._journal.open_jobs()
        if plan is None or plan[0] != self._bundle_sha256:
            if open_jobs:
                jobs = "1 job" if len(open_jobs) == 1 else f"{len(open_jobs)} jobs"
                raise OutputError(f"the journal holds {jobs} of another bundle; give another --journal, or finish them")
            return
        held, record = decode_plan(plan[1])
        runs = dict(zip(held.numbers, held.runs, strict=True))
        newest, *older = sorted(record.generations, key=lambda each: each != record.current)
        scheduler = self._new_scheduler({number: runs[number] for number in record.generations[newest]}, newest)
        for generation in older:
            scheduler.add_generation(generation, {number: runs[number] for number in record.generations[generation]})
        self.scheduler, self.placement = scheduler, held
        scheduler.replicas.dealt = self._dealt(held)
        for each in open_jobs:
            job = scheduler.add(each.job, each.client, each.tensors, each.sub_bundles, each.generation, exact=each.exact)
            job.decoded = decode_note(each.reason)
            if job.flow.finished:
                scheduler.remove(each.job)
                self._journal.finish(each.job, "done")
        if older:
            self._move = Move.resumed(scheduler, self, held, older[0])
        if scheduler.jobs:
            self._say(f"jobs that go on: {len(scheduler.jobs)}")

    def ensure(self) -> None:
        """Place the bundle if nothing is under way and the workers have changed; else mend the placement."""
        homes = self._homes()
        workers = self._usable_workers()
        settled = self._is_settled(time.monotonic())
        lacks = self._lacks(homes)
        if self.scheduler and (self.scheduler.jobs or self._move):
            self._busy_at = time.monotonic()
            if self._move and not lacks:
                self._advance(self._move)
                return
            too_few = self._is_thin(homes)
            names = {worker.name for worker in workers}
            if workers and (lacks or (too_few and settled and self._ordered_to != names)):
                self.mend()
            return
        enough = len(workers) >= (1 if self.scheduler else self._options.least_workers)
        unchanged = homes and () not in homes and self._placed_on == workers
        goes_on = self._covering and homes and not lacks and time.monotonic() - self._busy_at < LULL_S
        if not enough or not settled or unchanged or goes_on:
            return
        try:
            find = self._covering.place if self._covering and self._manifest.codes else self._placer.place
            placement = find(workers)
            assign(self._manifest, placement, workers)  # raises before the present placement is given up
            self.scheduler = self._new_scheduler(dict(zip(placement.numbers, placement.runs, strict=True)))
            self._order(placement, workers)
            self._placed_on = workers
        except BudgetError as error:
            self._complain(str(error))

    def mend_if_needed(self) -> None:
        """Give the sub-bundles of lost workers to others, unless codes and copies replace them."""
        homes = self._homes()
        if self._covering is None or self.placement is None or self._lacks(homes):
            self.mend()
        else:
            self.placement = replace(self.placement, homes=tuple(homes))
            self._say("codes and copies replace it")
            for line in self.coverage:
                self._say(line)

    def _lacks(self, homes: Sequence[tuple[str, ...]]) -> bool:
        if self._covering and self.placement and homes:
            return self._covering.lacks(self.placement, homes, exact=self._has_exact_jobs)
        return () in homes

    def _is_thin(self, homes: Sequence[tuple[str, ...]]) -> bool:
        if self._covering and self.placement:
            return self._covering.is_thin(self.placement, homes)
        return any(len(each) < self._options.copies for each in homes)

    @property
    def _has_exact_jobs(self) -> bool:
        return self.scheduler is not None and self.scheduler.has_exact_jobs

    def _repaired(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> Placement:
        if self._covering:
            return self._covering.repair(placement, workers, exact=self._has_exact_jobs)
        return repair_placement(self._manifest, placement, workers, self._options.copies)

    def mend(self) -> None:
        """Give the sub-bundles of lost workers to others; jobs go on from the tensors that are there."""
        assert self.placement
        workers = self._usable_workers()
        if self._move and self._move.phase == "loading":
            self.placement = self._move.give_up()
            self._move = None
            self._say("the move is given up: a worker is gone or changed")
        elif self._move:
            self.placement = self._move.active
        if not workers:
            self._complain("no worker is left; jobs wait for one")
            return
        try:
            repaired = self._repaired(self.placement, workers)
            if self._covering and [*repaired.homes] == self._homes():
                self._ordered_to = {worker.name for worker in workers}  # nobody is free to hold what is lost
                return
            self._order(repaired, workers)
            if self._move:
                self._move.mended(self.placement)
            self._placed_on = []  # when nothing is under way, a better placement follows, also if the lost worker is back
        except BudgetError as error:
            self._complain(str(error))

    def drain(self, name: str, *, drained: bool) -> None:
        """Take a worker's sub-bundles away and give it no more, or with ``drained`` False allow it some again."""
        (self._workers.drained.add if drained else self._workers.drained.discard)(name)
        self.workers_changed()
        if self.scheduler and self.scheduler.jobs and drained:
            self.mend()

    def move(self, homes: Mapping[int, Sequence[str]]) -> None:
        """Move sub-bundles, by their numbers, to the workers named; the runs of steps stay. Raises `BudgetError`."""
        workers = self._usable_workers()
        if self.placement is None or self.scheduler is None:
            raise BudgetError("nothing is placed yet; start a worker")
        if self._move:
            raise BudgetError("sub-bundles move already; try again when they have")
        moved = moved_as_asked(self._manifest, self.placement, homes, workers)
        assign(self._manifest, moved, workers)
        self._order(moved, workers)
        self._placed_on = workers

    def begin_move(self, target: Placement) -> None:
        """Begin to compute new jobs by another placement. Raises `BudgetError` if both do not fit side by side."""
        assert self.scheduler
        assert self.placement
        workers = self._usable_workers()
        assign(self._manifest, target, workers)
        self._move = Move(self.scheduler, self, self.placement, target)
        self._placed_on = workers

    @property
    def move_phase(self) -> str | None:
        """The phase of the move that is under way, or None."""
        return self._move.phase if self._move else None

    def hold(self, held: Placement, active: Placement, only: Collection[str]) -> None:
        """Order these workers to hold their part of ``held``; the jobs under way need ``active``. Raises `BudgetError`."""
        self._order(held, self._usable_workers(), active=active, only=only)

    def has_obeyed(self, worker: str) -> bool:
        """Return whether a worker has carried out its last orders, or is gone."""
        return self._workers.has_obeyed(worker)

    def _advance(self, move: Move) -> None:
        phase = move.phase
        try:
            move.advance()
        except BudgetError as error:
            self._complain(str(error))
            self.mend()
            return
        if move.phase == "draining" != phase:
            seconds = time.monotonic() - move.began
            self._say(f"new jobs take the new runs of steps, after {seconds:.1f} s; older jobs end under theirs")
        if move.is_over:
            self._move = None
            self.moves_done += 1
            self._say(f"the move is done, after {time.monotonic() - move.began:.1f} s")

    @property
    def workers(self) -> list[WorkerCapacity]:
        """The workers that may get sub-bundles now."""
        return self._usable_workers()

    def place_anew(self) -> None:
        """Forget what `move` asked for: place by the workers' capacities as soon as nothing is under way."""
        self._placed_on = []

    def _usable_workers(self) -> list[WorkerCapacity]:
        return self._workers.capacities(self._options.safe)

    def _homes(self) -> list[tuple[str, ...]]:
        """Return the workers of each sub-bundle that the jobs under way need."""
        if self.scheduler is None or self.placement is None:
            return []
        return [self.scheduler.replicas.homes[number] for number in self.placement.numbers]

    def _dealt(self, held: Placement) -> frozenset[int]:
        """Return the numbers of the sub-bundles whose homes share the inputs."""
        return frozenset(number for number, run in zip(held.numbers, held.runs, strict=True) if run in held.dealt)

    def _new_scheduler(self, runs: Mapping[int, range], generation: int = 0) -> Scheduler:
        first_attempt = self._journal.count() * _ATTEMPTS_PER_START
        graph = SubBundleGraph(self._manifest, [*runs.values()], [*runs], self._options.margin)
        options = self._options
        return Scheduler(
            graph, lease_s=options.lease_s, first_attempt=first_attempt, votes=options.votes, generation=generation
        )

    def _order(
        self,
        placement: Placement,
        workers: Sequence[WorkerCapacity],
        *,
        active: Placement | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        """Order the workers to hold their sub-bundles, write the placement down, and tell the operator.

        ``active`` is the part of the placement that the jobs under way need, all of it by default. With ``only``, these
        workers alone get new orders.
        """
        assert self.scheduler
        assigned = self._workers.order(placement, workers, only)
        self.placement, self._ordered_to = active or placement, {worker.name for worker in workers}
        self.complaint = ""
        generations = {
            generation: numbers
            for generation, numbers in self.scheduler.generations.items()
            if {*numbers} <= {*self.placement.numbers}
        }
        plan = encode_plan(self.placement, generations, self.scheduler.generation)
        self._journal.set_plan(self._bundle_sha256, plan)
        self.scheduler.replicas.place(dict(zip(placement.numbers, placement.homes, strict=True)))
        self.scheduler.replicas.dealt = self._dealt(placement)
        self.scheduler.withdraw()
        self._lease_rules.ordered(self.scheduler, assigned, workers, self._placer.speeds(workers))
        if only is None:
            self._describe(placement, assigned, workers)

    def _describe(
        self, placement: Placement, assigned: Mapping[str, Mapping[int, Manifest]], workers: Sequence[WorkerCapacity]
    ) -> None:
        for line in describe_placement(self._manifest, placement, assigned):
            self._say(line)
        for line in self.coverage:
            self._say(line)
        if () in placement.homes:
            return
        if sum(map(len, placement.runs)) != len(self._manifest.steps):
            return  # those of two generations
        expected = self._placer.judge(placement, workers).evaluation
        links = "measured links" if all(worker.link for worker in workers) else "links of 94 Mbit/s where none is measured"
        self._say(
            f"expected, with {links}: {expected.latency_s:.3f} s an inference, "
            f"{expected.throughput_per_s:.2f} a second in a stream"
        )

    @property
    def coverage(self) -> tuple[str, ...]:
        """Which boards may be lost, in words; empty without codes and ``tolerate``."""
        if self._covering is None or self.placement is None:
            return ()
        present = replace(self.placement, homes=tuple(self._homes()))
        return self._covering.coverage(present, self._options.tolerate)

    def set_speeds(self, speeds: Mapping[str, float]) -> None:
        """Tell the scheduler how fast workers are, by name."""
        assert self.scheduler
        self._lease_rules.set_speeds(self.scheduler, speeds)

    def _complain(self, reason: str) -> None:
        if reason != self.complaint:
            self.complaint = reason
            _log.warning("%s", reason)
