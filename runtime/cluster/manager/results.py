"""What becomes of what workers answer: written down, or compared first; and the end of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.status import StatusPublisher
from hyps.runtime.cluster.manager.votes import Votes
from hyps.runtime.cluster.protocol.assembler import Arrival
from hyps.runtime.cluster.protocol.frames import Dropped, Key
from hyps.runtime.cluster.protocol.messages import Failed
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import Journal

log = logging.getLogger(__name__)


class ResultCollector:
    """With ``votes``, so many workers' answers are compared; ``outvoted`` is told whose was wrong.

    ``ended`` is told of a job that is done or has failed, when that is written down.
    """

    def __init__(
        self,
        planning: Deployment,
        journal: Journal,
        reporter: StatusPublisher,
        votes: int,
        outvoted: Callable[[str, Key], None],
        ended: Callable[[str], None],
    ) -> None:
        self._planning, self._journal, self._reporter = planning, journal, reporter
        self._ballots = Votes(votes) if votes > 1 else None
        self._outvoted, self._ended = outvoted, ended

    @property
    def _scheduler(self) -> Scheduler:
        assert self._planning.scheduler
        return self._planning.scheduler

    def arrived(self, worker: str, arrival: Arrival) -> None:
        """A worker's output of a share."""
        if self._ballots:
            self._vote(worker, arrival, self._ballots)
        else:
            self._keep(worker, arrival)

    def failed(self, worker: str, message: Failed) -> None:
        """A worker could not compute a share. Raises `Dropped` where it was never asked to."""
        if self._planning.scheduler is None:
            raise Dropped("never asked for")
        self._scheduler.check(worker, message.key)
        if message.input and not self._ballots and message.key.job in self._scheduler.jobs:
            self.fail(message.key.job, message.reason)
        else:
            log.warning("%s could not compute share %d: %s", worker, message.key.share, message.reason)
            self._scheduler.failed(worker, message.key)

    def fail(self, job: str, reason: str) -> None:
        """A job will have no result."""
        self._journal.finish(job, "failed", reason)
        if self._ballots:
            self._ballots.forget(job)
        self._end(job)

    def _vote(self, worker: str, arrival: Arrival, ballots: Votes) -> None:
        key = arrival.key
        if key.job not in self._scheduler.jobs and not ballots.knows(key):  # so late that nobody remembers
            self._scheduler.answered(key)
            return
        verdict = ballots.add(worker, arrival, self._scheduler.graph.outputs[key.share])
        if verdict is None:
            return
        self._scheduler.answered(key)
        for name in verdict.wrong:
            self._outvoted(name, key)
        if verdict.hopeless:
            log.warning("no majority agrees on share %d of job %s: it is asked again", key.share, key.job)
            self._scheduler.ask_again(key)
        for each in (verdict.winner or {}).values():
            self._keep(worker, each)

    def _keep(self, worker: str, arrival: Arrival) -> None:
        key = arrival.key
        if key.job not in self._scheduler.jobs:
            return
        self._journal.arrived(key.job, arrival.tensor, arrival.digest, arrival.data)
        released = self._scheduler.arrived(key, arrival.tensor, arrival.digest)
        if released is None:
            return
        self._journal.complete(key.job, key.share, released)
        self._reporter.computed[worker].count()
        self._reporter.trace.done(key)
        if self._scheduler.jobs[key.job].flow.finished:
            self._journal.finish(key.job, "done")
            self._reporter.answered.count()
            self._end(key.job)

    def _end(self, job: str) -> None:
        self._scheduler.remove(job)
        self._ended(job)
