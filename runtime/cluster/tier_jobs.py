"""Exchange the rests of inferences with the manager of the tier above, give them up when it is silent, and time the link."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from hyps.runtime.cluster.protocol.client_messages import Delivered, Ping, Pong
from hyps.runtime.cluster.submitted_jobs import CHECK_S, SubmittedJobs

#: The jobs that were given up of which the manager is told if it sends their results.
_GIVEN_UP = 100


class TierJobs(SubmittedJobs):
    """The rests that one client has sent up; ``ponged`` is called with the manager's answers to `ping`.

    The other arguments are those of `SubmittedJobs`.
    """

    def __init__(self, *arguments: Any, ponged: Callable[[Pong], None], **options: Any) -> None:
        self._ponged = ponged
        self._given_up: deque[str] = deque(maxlen=_GIVEN_UP)
        super().__init__(*arguments, **options)

    @property
    def connected(self) -> bool:
        """Whether the hub is there now."""
        return self._connection.connected

    def ping(self, number: int, padding: int, exits: tuple[int, ...], limit_s: float) -> float | None:
        """Send a message that the manager answers, with so many bytes of padding, and these exits' numbers.

        Return the seconds until the hub had it; None if that takes longer than ``limit_s``.
        """
        began = time.monotonic()
        self._publish(Ping(number=number, bundle=self._bundle_sha256, exits=exits, padding="x" * padding))
        return time.monotonic() - began if self._connection.wait_until_sent(0, limit_s) else None

    def finish(self, name: str, until: float, silent_s: float) -> str:
        """Wait for a job and forget it; return an empty text, or why there is no result.

        It is given up when the hub is gone, when the manager says nothing for ``silent_s`` seconds, and at the time
        ``until`` of the monotonic clock.
        """
        job = self._jobs[name]
        problem = ""
        with self._changed:
            while not problem and not self._finished(name):
                now = time.monotonic()
                if self._fault or not self.connected:
                    problem = "the hub is gone"
                elif now - job.advanced > silent_s:
                    problem = f"no answer for {silent_s:g} s"
                elif now > until:
                    problem = "the answer did not come in time"
                else:
                    self._changed.wait(CHECK_S)
            del self._jobs[name]
            if problem:
                self._given_up.append(name)
        return problem or str(job.error or "")

    def _take_pong(self, pong: Pong) -> None:
        """Take a sign of life, which is one for the jobs, too."""
        for job in self._jobs.values():
            job.advanced = time.monotonic()
        self._ponged(pong)

    def _is_unknown(self, job: str) -> None:
        """Have the manager forget the result of a job that was given up."""
        if job in self._given_up:
            self._given_up.remove(job)
            self._publish(Delivered(job=job))
