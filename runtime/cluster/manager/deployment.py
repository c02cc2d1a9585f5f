"""Decide which worker holds which sub-bundle: place the bundle when nothing is under way, mend when a worker is lost.

While jobs are under way the runs of steps stay as they are: the jobs' tensors are those that cross the ends of these runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import Work
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.description import describe_placement
from hyps.runtime.cluster.placement.forecast import forecast, streamed_bytes
from hyps.runtime.cluster.placement.partitioner import WorkerCapacity, step_cost
from hyps.runtime.cluster.placement.placement import Placement, assign, place, repair_placement, runnable_steps
from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.scheduler import LEASE_WINDOW, Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BudgetError, OutputError

#: Attempt numbers reserved for one start of a manager: more than it makes at one sub-bundle of a job.
_ATTEMPTS_PER_START = 4096
#: A placement waits for workers that come or go for this many times ``settle_s`` at most.
_LONGEST_SETTLES = 10
#: A worker gets an input that is larger than this only after it has answered the one before.
_LARGE_INPUT_BYTES = 32 << 20
_log = logging.getLogger(__name__)


class Deployment:
    """The placement of one manager's bundle on its workers, and the scheduler of its jobs.

    ``scheduler`` is None until the first placement. ``complaint`` is the reason why the last placement failed, or empty.
    Not thread-safe: use it on the manager's thread.
    """

    def __init__(
        self,
        manifest: Manifest,
        bundle_sha256: str,
        journal: Journal,
        workers: WorkerRegistry,
        options: ClusterOptions,
        say: Callable[[str], None],
    ) -> None:
        self.scheduler: Scheduler | None = None
        self.complaint = ""
        self._manifest, self._bundle_sha256, self._journal = manifest, bundle_sha256, journal
        self._workers, self._options, self._say = workers, options, say
        self._placement: Placement | None = None
        self._placed_on: list[WorkerCapacity] = []
        self._ordered_to: set[str] = set()
        self._changed_at = self._changing_since = 0.0
        self._read_s: dict[tuple[str, int], float] = {}

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
        graph = self.scheduler.graph
        macs = sum(step_cost(self._manifest, self._manifest.steps[index]) for index in graph.runs[sub_bundle])
        read_s = self._read_s.get((worker, sub_bundle), 0.0)
        return Work(macs=macs, moved_bytes=graph.moved_bytes[sub_bundle], read_s=read_s)

    def run_of(self, worker: str, sub_bundle: int) -> tuple[range | None, float]:
        """Return a sub-bundle's steps, None if there is none, and the seconds in which the worker reads weights for it."""
        runs = self.scheduler.graph.runs if self.scheduler else ()
        known = sub_bundle < len(runs)
        return runs[sub_bundle] if known else None, self._read_s.get((worker, sub_bundle), 0.0)

    def can_spare(self, name: str) -> bool:
        """Return whether the other workers could take over all sub-bundles of this one."""
        others = [worker for worker in self._usable_workers() if worker.name != name]
        if self._placement is None or not others:
            return False
        try:
            assign(self._manifest, repair_placement(self._manifest, self._placement, others, self._options.copies), others)
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
        placed = msgspec.json.decode(plan[1], type=list[tuple[int, int, tuple[str, ...]]])
        runs = tuple(range(start, stop) for start, stop, _ in placed)
        self.scheduler = self._new_scheduler(runs)
        homes = tuple(home for _, _, home in placed)
        self._placement = Placement(runs=runs, homes=homes, reasons=("as before",) * len(runs))
        for record in open_jobs:
            job = self.scheduler.add(record.job, record.client, record.tensors, record.sub_bundles)
            if job.flow.finished:
                self.scheduler.remove(record.job)
                self._journal.finish(record.job, "done")
        if self.scheduler.jobs:
            self._say(f"jobs that go on: {len(self.scheduler.jobs)}")

    def ensure(self) -> None:
        """Place the bundle if nothing is under way and the workers have changed; else mend the placement."""
        homes = self.scheduler.replicas.homes if self.scheduler else []
        workers = self._usable_workers()
        settled = self._is_settled(time.monotonic())
        if self.scheduler and self.scheduler.jobs:
            too_few = any(len(each) < self._options.copies for each in homes)
            names = {worker.name for worker in workers}
            if workers and (() in homes or (too_few and settled and self._ordered_to != names)):
                self.mend()
            return
        enough = len(workers) >= (1 if self.scheduler else self._options.least_workers)
        unchanged = homes and () not in homes and self._placed_on == workers
        if not enough or not settled or unchanged:
            return
        try:
            placement = place(self._manifest, workers, self._options.copies)
            assign(self._manifest, placement, workers)  # raises before the present placement is given up
            self.scheduler = self._new_scheduler(placement.runs)
            self._order(placement, workers)
            self._placed_on = workers
        except BudgetError as error:
            self._complain(str(error))

    def mend(self) -> None:
        """Give the sub-bundles of lost workers to others; jobs go on from the tensors that are there."""
        assert self._placement
        workers = self._usable_workers()
        if not workers:
            self._complain("no worker is left; jobs wait for one")
            return
        try:
            self._order(repair_placement(self._manifest, self._placement, workers, self._options.copies), workers)
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
        if self._placement is None or self.scheduler is None:
            raise BudgetError("nothing is placed yet; start a worker")
        if unknown := sorted({name for each in homes.values() for name in each} - {worker.name for worker in workers}):
            raise BudgetError(f"{unknown[0]!r} is no worker that may get sub-bundles now")
        if strange := sorted(set(homes) - set(range(len(self._placement.runs)))):
            raise BudgetError(f"there is no sub-bundle {strange[0]}; sub-bundles are 0 to {len(self._placement.runs) - 1}")
        if [number for number, names in homes.items() if not names]:
            raise BudgetError("each sub-bundle needs a worker")
        new_homes = [homes.get(number, known) for number, known in enumerate(self._placement.homes)]
        reasons = ["as asked" if number in homes else why for number, why in enumerate(self._placement.reasons)]
        moved = Placement(
            runs=self._placement.runs, homes=tuple(tuple(dict.fromkeys(each)) for each in new_homes), reasons=tuple(reasons)
        )
        self._check_rights(moved, workers)
        assign(self._manifest, moved, workers)
        self._order(moved, workers)
        self._placed_on = workers

    def place_anew(self) -> None:
        """Forget what `move` asked for: place by the workers' capacities as soon as nothing is under way."""
        self._placed_on = []

    def _check_rights(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> None:
        for worker in workers:
            runnable = runnable_steps(self._manifest, worker)
            for run, homes in zip(placement.runs, placement.homes, strict=True):
                if worker.name in homes and not runnable.issuperset(run):
                    step = self._manifest.steps[next(index for index in run if index not in runnable)]
                    raise BudgetError(
                        f"{worker.name} cannot have step {step.name}: it does not fit, or may not see the inputs"
                    )

    def _usable_workers(self) -> list[WorkerCapacity]:
        return self._workers.capacities(self._options.safe)

    def _new_scheduler(self, runs: Sequence[range]) -> Scheduler:
        first_attempt = self._journal.count() * _ATTEMPTS_PER_START
        graph = SubBundleGraph(self._manifest, runs)
        return Scheduler(graph, lease_s=self._options.lease_s, first_attempt=first_attempt, votes=self._options.votes)

    def _order(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> None:
        """Order the workers to hold their sub-bundles, write the placement down, and tell the operator."""
        assert self.scheduler
        assigned = self._workers.order(placement, workers)
        self._placement, self._ordered_to = placement, {worker.name for worker in workers}
        self.complaint = ""
        placed = [(run.start, run.stop, homes) for run, homes in zip(placement.runs, placement.homes, strict=True)]
        self._journal.set_plan(self._bundle_sha256, msgspec.json.encode(placed).decode())
        self.scheduler.replicas.place(dict(enumerate(placement.homes)))
        self.scheduler.withdraw()
        self.scheduler.windows = {worker.name: self._window(worker, assigned[worker.name]) for worker in workers}
        self._read_s = {
            (worker.name, number): streamed_bytes(part) / worker.storage_bytes_per_s
            for worker in workers
            for number, part in assigned[worker.name].items()
        }
        groups = {worker.name for worker in workers if worker.group}  # a group changes its workers' sub-bundles, too
        self.scheduler.streaming = frozenset(
            name
            for name, own in assigned.items()
            if len(own) > 1 and (name in groups or any(map(streamed_bytes, own.values())))
        )
        for line in describe_placement(self._manifest, placement, assigned):
            self._say(line)
        expected = forecast(self._manifest, placement, assigned, workers)
        self._say(
            f"expected, with links of 94 Mbit/s: {expected.latency_s:.3f} s an inference, "
            f"{expected.throughput_per_s:.2f} a second in a stream"
        )

    def _window(self, worker: WorkerCapacity, parts: Mapping[int, Manifest]) -> int:
        """Return how many leases a worker has at a time: a single board has no memory for a second large input."""
        if worker.group:
            return LEASE_WINDOW * worker.group
        assert self.scheduler
        largest = max((self.scheduler.graph.input_bytes[number] for number in parts), default=0)
        return LEASE_WINDOW if largest <= _LARGE_INPUT_BYTES else 1

    def _complain(self, reason: str) -> None:
        if reason != self.complaint:
            self.complaint = reason
            _log.warning("%s", reason)
