"""Hold what workers are ordered to compute: the placement that jobs under way need, and the scheduler of these jobs.

`hyps.runtime.cluster.manager.upkeep` decides when it changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.generations import decode_plan, encode_plan
from hyps.runtime.cluster.manager.lease_rules import LeaseRules
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.speeds import Work
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.coverage import coverage_lines
from hyps.runtime.cluster.placement.description import describe_placement
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.protocol.decoded_note import decode_note
from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import OutputError

#: Attempt numbers reserved for one start of a manager: more than it makes at one sub-bundle of a job.
_ATTEMPTS_PER_START = 4096
_log = logging.getLogger(__name__)


class Deployment:
    """The placement of one manager's bundle on its workers, and the scheduler of its jobs.

    ``scheduler`` is None until the first placement. ``complaint`` is the reason why the last placement failed, or empty.
    ``placement`` is what the jobs under way need; ``ordered_to`` are the workers that were there when it was ordered.
    Not thread-safe: use it on the manager's thread.
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
        self.ordered_to: set[str] = set()
        self._lease_rules = LeaseRules(manifest)

    def work(self, worker: str, sub_bundle: int) -> Work:
        """Return what a worker has to do for one input of a sub-bundle that it holds."""
        assert self.scheduler
        return self._lease_rules.work(self.scheduler, worker, sub_bundle)

    def run_of(self, worker: str, sub_bundle: int) -> tuple[range | None, float]:
        """Return a sub-bundle's steps, None if there is none, and the seconds in which the worker reads weights for it."""
        run = self.scheduler.graph.runs.get(sub_bundle) if self.scheduler else None
        return run, self._lease_rules.read_s(worker, sub_bundle)

    def resume(self) -> int | None:
        """Resume the jobs of the journal, with the runs of steps that it remembers.

        Return the generation that older jobs belong to, None if all belong to one. Raises `OutputError` if these are jobs of
        another bundle.
        """
        plan = self._journal.plan()
        open_jobs = self._journal.open_jobs()
        if plan is None or plan[0] != self._bundle_sha256:
            if open_jobs:
                jobs = "1 job" if len(open_jobs) == 1 else f"{len(open_jobs)} jobs"
                raise OutputError(f"the journal holds {jobs} of another bundle; give another --journal, or finish them")
            return None
        held, record = decode_plan(plan[1])
        runs = dict(zip(held.numbers, held.runs, strict=True))
        newest, *older = sorted(record.generations, key=lambda each: each != record.current)
        scheduler = self._new_scheduler({number: runs[number] for number in record.generations[newest]}, newest)
        for generation in older:
            scheduler.generations.add(generation, {number: runs[number] for number in record.generations[generation]})
        self.scheduler, self.placement = scheduler, held
        scheduler.replicas.dealt = self._dealt(held)
        for each in open_jobs:
            job = scheduler.add(each.job, each.client, each.tensors, each.sub_bundles, each.generation, exact=each.exact)
            job.decoded = decode_note(each.reason)
            if job.flow.finished:
                scheduler.remove(each.job)
                self._journal.finish(each.job, "done")
        if scheduler.jobs:
            self._say(f"jobs that go on: {len(scheduler.jobs)}")
        return older[0] if older else None

    def start(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> None:
        """Compute all jobs by this placement from now on; none is under way. Raises `BudgetError`."""
        self.scheduler = self._new_scheduler(dict(zip(placement.numbers, placement.runs, strict=True)))
        self.order(placement, workers)

    def hold(self, held: Placement, active: Placement, only: Collection[str]) -> None:
        """Order these workers to hold their part of ``held``; the jobs under way need ``active``. Raises `BudgetError`."""
        self.order(held, self.workers, active=active, only=only)

    def has_obeyed(self, worker: str) -> bool:
        """Return whether a worker has carried out its last orders, or is gone."""
        return self._workers.has_obeyed(worker)

    def order(
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
        assigned = self._workers.orders.order(placement, workers, only)
        self.placement, self.ordered_to = active or placement, {worker.name for worker in workers}
        self.complaint = ""
        generations = {
            generation: numbers
            for generation, numbers in self.scheduler.generations.numbers.items()
            if {*numbers} <= {*self.placement.numbers}
        }
        plan = encode_plan(self.placement, generations, self.scheduler.generations.newest)
        self._journal.set_plan(self._bundle_sha256, plan)
        self.scheduler.replicas.place(dict(zip(placement.numbers, placement.homes, strict=True)))
        self.scheduler.replicas.dealt = self._dealt(placement)
        self.scheduler.withdraw()
        self._lease_rules.ordered(self.scheduler, assigned, workers, self._placer.speeds(workers))
        if only is None:
            self._describe(placement, assigned, workers)

    @property
    def workers(self) -> list[WorkerCapacity]:
        """The workers that may get sub-bundles now."""
        return self._workers.capacities(self._options.safe)

    def homes(self) -> list[tuple[str, ...]]:
        """Return the workers of each sub-bundle that the jobs under way need."""
        if self.scheduler is None or self.placement is None:
            return []
        return [self.scheduler.replicas.homes[number] for number in self.placement.numbers]

    @property
    def coverage(self) -> tuple[str, ...]:
        """Which boards may be lost, in words; empty without codes and ``tolerate``."""
        if self.placement is None or not (self._manifest.codes or self._options.tolerate):
            return ()
        margin = self._options.margin
        losses = self._options.tolerate or max(len(code.parity) for code in self._manifest.codes) - margin
        present = replace(self.placement, homes=tuple(self.homes()))
        return tuple(coverage_lines(self._manifest, present, losses, margin))

    def set_speeds(self, speeds: Mapping[str, float]) -> None:
        """Tell the scheduler how fast workers are, by name."""
        assert self.scheduler
        self._lease_rules.set_speeds(self.scheduler, speeds)

    def complain(self, reason: str) -> None:
        """Keep the reason why steps cannot be placed, and log it if it is new."""
        if reason != self.complaint:
            self.complaint = reason
            _log.warning("%s", reason)

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
