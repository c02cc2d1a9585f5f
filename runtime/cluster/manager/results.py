"""Collect workers' results: compare them if there is a vote, write them down, and end jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.votes import Votes
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.messages import Failed
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.terminal.console import plain

_log = logging.getLogger(__name__)


class ResultCollector:
    """The results of one manager's jobs; with ``votes``, the results of that many workers are compared.

    ``answered`` is called with a worker and the lease that it has computed, ``unanswered`` with a worker that could not, and
    why; ``outvoted`` with a worker whose result lost a vote; ``ended`` with a job that is done or has failed, after the
    journal has it.
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
        outvoted: Callable[[str, Key], None],
        ended: Callable[[str], None],
    ) -> None:
        self._deployment, self._journal, self._statistics = deployment, journal, statistics
        self._votes = Votes(votes) if votes > 1 else None
        self._answered, self._unanswered = answered, unanswered
        self._outvoted, self._ended = outvoted, ended

    @property
    def _scheduler(self) -> Scheduler:
        assert self._deployment.scheduler
        return self._deployment.scheduler

    def arrived(self, worker: str, received: ReceivedTensor) -> None:
        """Take a worker's output of a sub-bundle."""
        if self._votes:
            self._vote(worker, received, self._votes)
        else:
            self._keep(worker, received)

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
            self._outvoted(name, key)
        if verdict.hopeless:
            _log.warning("no majority agrees on sub-bundle %d of job %s: it is computed again", key.sub_bundle, key.job)
            self._scheduler.ask_again(key)
        for each in (verdict.winner or {}).values():
            self._keep(worker, each)

    def _keep(self, worker: str, received: ReceivedTensor) -> None:
        """Write an output down, and end its job if it was the last."""
        key = received.key
        if key.job not in self._scheduler.jobs:
            return
        self._journal.keep(key.job, received.tensor, received.digest, received.data)
        released = self._scheduler.arrived(key, received.tensor, received.digest)
        if released is None:
            return
        self._answered(worker, key)
        self._journal.complete(key.job, key.sub_bundle, released)
        self._statistics.computed[worker].count()
        self._statistics.trace.done(key)
        self._statistics.monitor.done(key, time.monotonic())
        if self._scheduler.jobs[key.job].flow.finished:
            self._journal.finish(key.job, "done")
            self._statistics.answered.count()
            self._end(key.job)

    def _end(self, job: str) -> None:
        self._scheduler.remove(job)
        self._ended(job)
