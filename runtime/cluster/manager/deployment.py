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
from hyps.runtime.cluster.manager.moving import Move
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import Work
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.coverage import coverage_lines
from hyps.runtime.cluster.placement.description import describe_placement
from hyps.runtime.cluster.placement.forecast import forecast, streamed_bytes
from hyps.runtime.cluster.placement.partitioner import LINK_BYTES_PER_S, WorkerCapacity, step_cost
from hyps.runtime.cluster.placement.placement import Placement, assign, place, repair_placement, runnable_steps
from hyps.runtime.cluster.placement.sharing import place_well
from hyps.runtime.cluster.protocol.decoded_note import decode_note
from hyps.runtime.cluster.scheduling.dispatch import LEASE_WINDOW
from hyps.runtime.cluster.scheduling.flow import SubBundleGraph
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BudgetError, OutputError

#: Attempt numbers reserved for one start of a manager: more than it makes at one sub-bundle of a job.
_ATTEMPTS_PER_START = 4096
#: A placement waits for workers that come or go for this many times ``settle_s`` at most.
_LONGEST_SETTLES = 10
#: A worker gets an input that is larger than this only after it has answered the one before.
_LARGE_INPUT_BYTES = 32 << 20
#: A worker that shares inputs with one faster than this gets one at a time.
_SLOW = 0.75
_log = logging.getLogger(__name__)


class Deployment:
    """The placement of one manager's bundle on its workers, and the scheduler of its jobs.

    ``scheduler`` is None until the first placement. ``complaint`` is the reason why the last placement failed, or empty.
    ``placement`` is what the jobs under way need. ``best_placement`` finds a placement on workers; raises `BudgetError`.
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
        self.placement: Placement | None = None
        self.best_placement: Callable[[Sequence[WorkerCapacity]], Placement] = self._place
        self._covering = Covering(manifest, options.copies) if manifest.codes or options.tolerate else None
        self._busy_at = 0.0
        self._move: Move | None = None
        self.moves_done = 0
        self._placed_on: list[WorkerCapacity] = []
        self._ordered_to: set[str] = set()
        self._changed_at = self._changing_since = 0.0
        self._read_s: dict[tuple[str, int], float] = {}
        self._room: dict[str, int] = {}

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
        run = self.scheduler.graph.runs.get(sub_bundle) if self.scheduler else None
        return run, self._read_s.get((worker, sub_bundle), 0.0)

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
            job = scheduler.add(each.job, each.client, each.tensors, each.sub_bundles, each.generation)
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
            placement = (
                self._covering.place(workers) if self._manifest.codes and self._covering else self.best_placement(workers)
            )
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
            return self._covering.lacks(self.placement, homes)
        return () in homes

    def _is_thin(self, homes: Sequence[tuple[str, ...]]) -> bool:
        if self._covering and self.placement:
            return self._covering.is_thin(self.placement, homes)
        return any(len(each) < self._options.copies for each in homes)

    def _repaired(self, placement: Placement, workers: Sequence[WorkerCapacity]) -> Placement:
        if self._covering:
            return self._covering.repair(placement, workers)
        return repair_placement(self._manifest, placement, workers, self._options.copies)

    def mend(self) -> None:
        """Give the sub-bundles of lost workers to others; jobs go on from the tensors that are there."""
        assert self.placement
        workers = self._usable_workers()
        if self._move and self._move.phase == "loading":
            self.placement = self._move.give_up()
            self._move = None
            self._say("the move is given up: a worker is gone or changed")
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
        if unknown := sorted({name for each in homes.values() for name in each} - {worker.name for worker in workers}):
            raise BudgetError(f"{unknown[0]!r} is no worker that may get sub-bundles now")
        numbers = self.placement.numbers
        if strange := sorted(set(homes) - set(numbers)):
            known = f"0 to {numbers[-1]}" if [*numbers] == [*range(len(numbers))] else ", ".join(map(str, numbers))
            raise BudgetError(f"there is no sub-bundle {strange[0]}; sub-bundles are {known}")
        if [number for number, names in homes.items() if not names]:
            raise BudgetError("each sub-bundle needs a worker")
        rows = zip(numbers, self.placement.homes, self.placement.reasons, strict=True)
        changed = [(homes.get(number, known), "as asked" if number in homes else why) for number, known, why in rows]
        moved = replace(
            self.placement,
            homes=tuple(tuple(dict.fromkeys(names)) for names, _ in changed),
            reasons=tuple(why for _, why in changed),
        )
        self._check_rights(moved, workers)
        assign(self._manifest, moved, workers)
        self._order(moved, workers)
        self._placed_on = workers

    def place_by(self, manifest: Manifest, workers: Sequence[WorkerCapacity]) -> Placement:
        """Place all steps as the operator chose, by what the manifest says that they cost. Raises `BudgetError`."""
        if self._options.placement == "pipeline" and self._options.objective == "throughput":
            return place(manifest, workers, self._options.copies)
        return place_well(manifest, workers, self._options.copies, self._options.objective)

    def moving_cost_s(self, target: Placement) -> float:
        """Return the seconds in which workers load what a move gives them: all by the link, and what they keep again."""
        assert self.placement
        cost_s = 0.0
        for worker in self._usable_workers():
            before, after = (
                {run for run, homes in zip(each.runs, each.homes, strict=True) if worker.name in homes}
                for each in (self.placement, target)
            )
            new, held = (sum(self._file_bytes(run) for run in runs) for runs in (after - before, after | before))
            if before != after:
                cost_s += new / LINK_BYTES_PER_S + 2 * held / worker.storage_bytes_per_s
        return cost_s

    def _file_bytes(self, run: range) -> int:
        return sum(file.size_bytes for index in run for file in self._manifest.steps[index].data_files)

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

    def _place(self, workers: Sequence[WorkerCapacity]) -> Placement:
        """Place all steps by the workers' claims. Raises `BudgetError`."""
        return self.place_by(self._manifest, workers)

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
        graph = SubBundleGraph(self._manifest, [*runs.values()], [*runs])
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
        self._room = {worker.name: self._window(worker, assigned[worker.name]) for worker in workers}
        self.set_speeds({worker.name: float(worker.macs_per_s) for worker in workers})
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
        expected = forecast(self._manifest, placement, assigned, workers)
        self._say(
            f"expected, with links of 94 Mbit/s: {expected.latency_s:.3f} s an inference, "
            f"{expected.throughput_per_s:.2f} a second in a stream"
        )

    @property
    def coverage(self) -> tuple[str, ...]:
        """Which boards may be lost, in words; empty without codes and ``tolerate``."""
        if self._covering is None or self.placement is None:
            return ()
        losses = self._options.tolerate or max(len(code.parity) for code in self._manifest.codes)
        present = replace(self.placement, homes=tuple(self._homes()))
        return tuple(coverage_lines(self._manifest, present, losses))

    def set_speeds(self, speeds: Mapping[str, float]) -> None:
        """Have the faster of workers that share inputs get them first, and slower ones one at a time.

        Results come in the order of the inputs, so that a second input that waits at a slow worker holds all up.
        """
        assert self.scheduler
        replicas = self.scheduler.replicas
        slow = set[str]()
        for number in replicas.dealt:
            homes = replicas.homes[number]
            fastest = max((speeds.get(home, 0.0) for home in homes), default=0.0)
            slow.update(home for home in homes if speeds.get(home, 0.0) < _SLOW * fastest)
        self.scheduler.speeds = speeds
        self.scheduler.windows = {name: 1 if name in slow else room for name, room in self._room.items()}

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
