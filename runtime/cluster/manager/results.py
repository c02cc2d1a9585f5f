"""Collect workers' results: compare them if there is a vote, write them down, and end jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hyps.runtime.cluster.codes.collector import CodedResults
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.votes import Votes
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.messages import Failed
from hyps.runtime.cluster.protocol.withdrawal import Withdrawn
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.terminal.console import plain

if TYPE_CHECKING:
    from hyps.runtime.cluster.manager.early_exits import EarlyExits
    from hyps.runtime.exits.policies import ExitPolicy

_log = logging.getLogger(__name__)


class ResultCollector:
    """The results of one manager's jobs; with ``votes``, the results of that many workers are compared.

    ``answered`` is called with a worker and the lease that it has computed, ``unanswered`` with a worker that could not, and
    why; ``outvoted`` with a worker whose result was wrong, and why; ``withdraw`` with a lease whose result nobody needs;
    ``made_at`` with a job that is done and the tiers above that made its result, if any did;
    ``ended`` with a job that is done or has failed, after the journal has it.
    """

    def __init__(
        self,
        deployment: Deployment,
        journal: Journal,
        statistics: Statistics,
        votes: int,
        *,
        answered: Callable[[str, Key], None],
        unanswered: Callable[[str, str], None],
        outvoted: Callable[[str, str], None],
        withdraw: Callable[[Lease], None],
        made_at: Callable[[str, str], None],
        ended: Callable[[str], None],
    ) -> None:
        self._deployment, self._journal, self._statistics = deployment, journal, statistics
        self._votes = Votes(votes) if votes > 1 else None
        #: The answers of coded groups, if the bundle has any that are used.
        self.coded: CodedResults | None = None
        #: What decides at early exits, if a policy does; ``new_exits`` makes it for the first client's policy.
        self.exits: EarlyExits | None = None
        self.new_exits: Callable[[], EarlyExits] | None = None
        self._answered, self._unanswered = answered, unanswered
        self._outvoted, self._withdraw, self._made_at, self._ended = outvoted, withdraw, made_at, ended

    @property
    def _scheduler(self) -> Scheduler:
        assert self._deployment.scheduler
        return self._deployment.scheduler

    def arrived(self, worker: str, received: ReceivedTensor) -> None:
        """Take a worker's output of a sub-bundle."""
        if self.coded and self.coded.takes(self._scheduler, received.key):
            self.coded.arrived(self._scheduler, worker, received, time.monotonic())
        elif self._votes:
            self._vote(worker, received, self._votes)
        else:
            self.keep(worker, received)

    def passes(self, key: Key) -> bool:
        """Return whether an output may be forwarded while it arrives."""
        run = self._scheduler.graph.runs.get(key.sub_bundle)
        if self.exits and run is not None and self.exits.ends(key.job, run):
            return False
        return self.coded is None or self.coded.passes(self._scheduler, key)

    def decide_by(self, job: str, policy: ExitPolicy) -> None:
        """Have a client's policy decide at the exits of its job."""
        if self.exits is None and self.new_exits:
            self.exits = self.new_exits()
        if self.exits:
            self.exits.decide_by(job, policy)

    def end_at_exit(self, job: Job, at: str = "") -> None:
        """End a job with the outputs that are there; ``at`` are the tiers above that made the last of them."""
        left = [number for number in job.flow.numbers if number not in job.flow.done]
        for lease in self._scheduler.skip(job, left):
            self._withdraw(lease)
        self._finish(job.job, at)

    def fell_back(self) -> None:
        """Count a rest that went up, and that workers here compute after all."""
        self._statistics.exits.fell_back += 1

    def sent(self, lease: Lease) -> None:
        """Note that a worker is sent inputs."""
        if self.coded:
            self.coded.sent(self._scheduler, lease, time.monotonic())

    def settle(self) -> None:
        """Decode what is lost or late."""
        if self.coded:
            self.coded.settle(self._scheduler, time.monotonic())

    def wait_s(self, longest_s: float) -> float:
        """Return the seconds until `settle` may have something to do, at most these."""
        return max(0.0, min(longest_s, self.coded.due_s(time.monotonic())) if self.coded else longest_s)

    def failed(self, worker: str, message: Failed) -> None:
        """Handle a worker's failure. Raises `Rejection` if that worker was not asked to compute the sub-bundle."""
        if self._deployment.scheduler is None:
            raise Rejection("never asked for")
        self._scheduler.check(worker, message.key)
        if message.input and not self._votes and message.key.job in self._scheduler.jobs:
            self.fail(message.key.job, message.reason)
        else:
            _log.warning("%s could not compute sub-bundle %d: %s", worker, message.key.sub_bundle, plain(message.reason))
            self._scheduler.failed(worker, message.key)
            self._unanswered(worker, "it failed several times in a row")

    def fail(self, job: str, reason: str) -> None:
        """End a job without a result."""
        self._journal.finish(job, "failed", reason)
        if self._votes:
            self._votes.forget(job)
        self._end(job)

    def _vote(self, worker: str, received: ReceivedTensor, votes: Votes) -> None:
        key = received.key
        if key.job not in self._scheduler.jobs and not votes.knows(key):  # too late to be compared
            self._scheduler.answered(key)
            return
        verdict = votes.add(worker, received, self._scheduler.graph.outputs[key.sub_bundle])
        if verdict is None:
            return
        self._answered(worker, key)
        self._scheduler.answered(key)
        for name in verdict.wrong:
            self._outvoted(name, f"it was outvoted on sub-bundle {key.sub_bundle} of job {key.job}")
        if verdict.hopeless:
            _log.warning("no majority agrees on sub-bundle %d of job %s: it is computed again", key.sub_bundle, key.job)
            self._scheduler.ask_again(key)
        for each in (verdict.winner or {}).values():
            self.keep(worker, each)

    def withdraw(self, lease: Lease) -> None:
        """Tell a worker that its result is needed no more."""
        self._withdraw(lease)

    def withdrawn(self, worker: str, message: Withdrawn) -> None:
        """Note that a worker sends no result. Raises `Rejection` if it was to send one."""
        if self._deployment.scheduler is None:
            raise Rejection("never asked for")
        self._scheduler.withdrawn(worker, message.key)
        self._statistics.codes.dropped(worker, computed=message.computed)

    def wrong(self, worker: str, reason: str) -> None:
        """Have a worker set aside whose answer for a coded group was wrong."""
        self._outvoted(worker, reason)

    def computed(self, worker: str, key: Key) -> None:
        """Note that a worker has computed all outputs of a sub-bundle."""
        self._answered(worker, key)
        self._statistics.computed[worker].count()
        self._statistics.trace.done(key)
        self._statistics.monitor.done(key, time.monotonic())

    def keep(self, worker: str | None, received: ReceivedTensor) -> None:
        """Write an output down, and end its job if it was the last; ``worker`` is None for one that is noted already."""
        key = received.key
        if key.job not in self._scheduler.jobs:
            return
        self._journal.keep(key.job, received.tensor, received.digest, received.data)
        released = self._scheduler.arrived(key, received.tensor, received.digest)
        if released is None:
            return
        if worker is not None:
            self.computed(worker, key)
        self._journal.complete(key.job, key.sub_bundle, released)
        job = self._scheduler.jobs[key.job]
        if job.flow.finished:
            self._finish(key.job, "")
        elif self.exits:
            self.exits.reached(self._scheduler, job, key.sub_bundle)

    def _finish(self, job: str, at: str) -> None:
        self._journal.finish(job, "done")
        self._statistics.answered.count()
        self._statistics.exits.ended(self._scheduler.jobs[job].tensors, at)
        self._made_at(job, at)
        self._end(job)

    def _end(self, job: str) -> None:
        self._scheduler.remove(job)
        if self.exits:
            self.exits.forget(job)
        if self.coded:
            self.coded.forget(job)
        self._ended(job)
