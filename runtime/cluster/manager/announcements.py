"""Keep the jobs that clients have announced, until it is their turn to send inputs."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from hyps.runtime.cluster.protocol.client_messages import Submit

#: The most jobs that wait for their turn to send. A client that is still there announces its jobs again every two seconds.
_MAX_OF_CLIENT, _MAX_ANNOUNCED, _ANNOUNCED_S = 2000, 10_000, 10.0


class Announced(NamedTuple):
    """A job that a client announced."""

    client: str
    submit: Submit


class Announcements:
    """The announced jobs by client, oldest first. Clients take turns: one that announces thousands delays no other."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, OrderedDict[str, tuple[float, Submit]]] = OrderedDict()

    def add(self, client: str, submit: Submit) -> bool:
        """Note when a client announced a job; return False where too many wait."""
        own: Mapping[str, tuple[float, Submit]] = self._jobs.get(client, {})
        if submit.job not in own and (len(own) >= _MAX_OF_CLIENT or sum(map(len, self._jobs.values())) >= _MAX_ANNOUNCED):
            return False
        self._jobs.setdefault(client, OrderedDict())[submit.job] = time.monotonic(), submit
        return True

    def take(self, sending: Counter[str], most: int) -> Announced | None:
        """Take the next job whose client is still there, of the client with the fewest jobs in ``sending``.

        Return None where there is none, or that client has as many as ``most``.
        """
        while self._jobs:
            client = min(self._jobs, key=lambda name: sending[name])
            if sending[client] >= most:
                return None
            _, (announced_at, submit) = self._jobs[client].popitem(last=False)
            self._jobs.move_to_end(client)
            if not self._jobs[client]:
                del self._jobs[client]
            if time.monotonic() - announced_at < _ANNOUNCED_S:
                return Announced(client, submit)
        return None

    def withdraw(self, job: str) -> None:
        """Forget a job."""
        for own in self._jobs.values():
            own.pop(job, None)
        self._jobs = OrderedDict((client, own) for client, own in self._jobs.items() if own)
